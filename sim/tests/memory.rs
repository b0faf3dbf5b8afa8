//! The memory of an engine does not grow with what happened to it. Alone in its file, since an allocator is for a whole
//! program.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ria_sim::Happening::{
    Crashed, Joined, KeyChanged, NetworkChanged, Paused, RelaySet, Removed, Roamed, Settled, Talked,
};
use ria_sim::internet::Place;
use ria_sim::{Happening, Plan, run_measured};

struct Counting;

thread_local! {
    /// Bytes that this thread has allocated and not freed: the test harness has threads of its own.
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator, which keeps the contract.
#[allow(unsafe_code, reason = "an allocator can't be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + i64::try_from(layout.size()).unwrap_or(i64::MAX));
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - i64::try_from(layout.size()).unwrap_or(i64::MAX));
        // SAFETY: `pointer` came from `alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes of host 0's engine at the end of a plan: what is freed when it is dropped.
fn engine_bytes(happenings: Vec<Happening>) -> i64 {
    let places = vec![Place::Public, Place::Behind(1), Place::Behind(2), Place::Behind(0)];
    let plan = Plan { seed: 7, places, members: 4, has_relay: true, happenings };
    run_measured(&plan, 0, |engine| {
        let before = LIVE.get();
        drop(engine);
        before - LIVE.get()
    })
    .unwrap_or_else(|failure| panic!("{}", failure.wrong))
}

/// Others come and go, change keys and places, and talk all the time.
fn churn(rounds: usize) -> Vec<Happening> {
    let mut happenings = vec![Settled];
    for round in 0..rounds {
        let host = 1 + round % 3;
        happenings.extend([
            Talked { from: host, to: 0, packets: 20, every: 10 },
            Talked { from: 0, to: host, packets: 20, every: 10 },
            Removed(host),
            Paused(300),
            Joined(host),
            Paused(700),
            Roamed { host, place: Place::Behind(round % 6) },
            KeyChanged(1 + (round + 1) % 3),
            Crashed { host: 1 + (round + 2) % 3, write_lost: false },
            NetworkChanged,
            Paused(1000),
        ]);
        if round % 10 == 0 {
            happenings.extend([RelaySet(true), Paused(2000)]);
        }
    }
    happenings.push(Settled);
    happenings
}

#[test]
fn an_engine_does_not_grow_with_what_happened_to_it() {
    let (young, old) = (engine_bytes(churn(20)), engine_bytes(churn(250)));
    assert!(young > 10_000, "{young} bytes can't be an engine with three peers");
    assert!(old < young + young / 4, "an engine grew from {young} to {old} bytes while others came and went");
}
