//! Settings as text, and lanes in virtual time.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::lane::{Counters, Lane};
use super::*;

fn quality(settings: &[&str]) -> Quality {
    Link::default().with(settings).unwrap().up
}

/// Sends numbered frames of 1000 bytes at a pace; gives who arrived when, counted from the first sending.
fn run(settings: &[&str], frames: u64, pace: Duration) -> (Vec<(u64, Duration)>, Counters) {
    let begin = Instant::now();
    let mut lane = Lane::new(quality(settings), 42);
    let mut arrived = Vec::new();
    let mut drain = |lane: &mut Lane<u64>, until: Option<Instant>| {
        while let Some(due) = lane.next_due().filter(|due| until.is_none_or(|until| *due <= until)) {
            assert_eq!(lane.poll(due - Duration::from_nanos(1)), None, "nothing comes before its time");
            arrived.push((lane.poll(due).unwrap(), due - begin));
        }
    };
    for number in 0..frames {
        let now = begin + pace * u32::try_from(number).unwrap();
        drain(&mut lane, Some(now));
        lane.push(number, 1000, now);
    }
    drain(&mut lane, None);
    let counters = lane.counters();
    assert_eq!(counters.taken, frames);
    let gone = counters.lost + counters.overflowed + counters.blacked_out;
    assert_eq!(counters.delivered, frames - gone + counters.duplicated);
    assert_eq!(counters.delivered, arrived.len() as u64);
    (arrived, counters)
}

fn numbers(arrived: &[(u64, Duration)]) -> Vec<u64> {
    arrived.iter().map(|(number, _)| *number).collect()
}

const MS: Duration = Duration::from_millis(1);

/// Whether a share is what was asked for, within a part of it.
fn is_near(share: f64, wanted: f64, part: f64) -> bool {
    (share - wanted).abs() <= wanted * part
}

#[test]
fn a_perfect_lane_delivers_everything_at_once_and_in_order() {
    let (arrived, counters) = run(&[], 1000, MS);
    assert!(arrived.iter().enumerate().all(|(n, got)| *got == (n as u64, MS * n as u32)));
    assert_eq!(counters, Counters { taken: 1000, delivered: 1000, ..Counters::default() });
}

#[test]
fn single_losses_are_as_many_as_asked_for_and_hardly_in_a_row() {
    let (arrived, counters) = run(&["loss=5"], 100_000, MS);
    assert!(is_near(counters.lost as f64 / 100_000.0, 0.05, 0.05), "{counters:?}");
    let (bursts, lost) = gaps(&numbers(&arrived), 100_000);
    assert!(is_near(lost as f64 / bursts as f64, 1.0 / 0.95, 0.05), "{lost} in {bursts}");
    let all = run(&["loss=100"], 100, MS).1;
    assert_eq!(all.lost, 100);
}

/// How many gaps there are in a row of numbers, and how many numbers are in them.
fn gaps(numbers: &[u64], until: u64) -> (u64, u64) {
    let mut next = 0;
    let mut found = (0, 0);
    for number in numbers.iter().copied().chain([until]) {
        if number > next {
            found = (found.0 + 1, found.1 + number - next);
        }
        next = number + 1;
    }
    found
}

#[test]
fn bursts_have_the_length_and_the_total_that_were_asked_for() {
    let (arrived, counters) = run(&["loss=3", "burst=8"], 400_000, MS);
    assert!(is_near(counters.lost as f64 / 400_000.0, 0.03, 0.1), "{counters:?}");
    let (bursts, lost) = gaps(&numbers(&arrived), 400_000);
    assert!(is_near(lost as f64 / bursts as f64, 8.0, 0.1), "{lost} in {bursts}");

    let (arrived, counters) = run(&["loss=3", "burst=20", "burst-loss=50"], 400_000, MS);
    assert!(is_near(counters.lost as f64 / 400_000.0, 0.03, 0.15), "{counters:?}");
    let (bursts, lost) = gaps(&numbers(&arrived), 400_000);
    assert!(
        (1.5..2.6).contains(&(lost as f64 / bursts as f64)),
        "half of the frames pass: {lost} in {bursts}"
    );
    // More than a burst can lose is lost all the time.
    let (_, counters) = run(&["loss=60", "burst=5", "burst-loss=50"], 50_000, MS);
    assert!(is_near(counters.lost as f64 / 50_000.0, 0.6, 0.05), "{counters:?}");
}

#[test]
fn a_rate_is_kept_and_the_queue_is_bounded_in_bytes() {
    // 1000 bytes each 0.5 ms are 16 Mbit/s; 8 fit, so every second one is dropped once 20 are waiting.
    let (arrived, counters) = run(&["rate=8mbit", "queue=20000"], 20_000, MS / 2);
    let (first, last) = (arrived[0].1, arrived[arrived.len() - 1].1);
    let rate = (arrived.len() - 1) as f64 * 8000.0 / (last - first).as_secs_f64();
    assert!(is_near(rate, 8e6, 0.01), "{rate}");
    assert!(is_near(counters.overflowed as f64, 10_000.0, 0.01), "{counters:?}");
    let longest = arrived.iter().map(|(number, at)| *at - MS / 2 * u32::try_from(*number).unwrap()).max();
    assert_eq!(longest, Some(MS * 20), "20 frames of a millisecond each");
    // Without a queue of its own: 100 ms.
    let (arrived, _) = run(&["rate=8mbit"], 20_000, MS / 2);
    let longest = arrived.iter().map(|(number, at)| *at - MS / 2 * u32::try_from(*number).unwrap()).max();
    assert_eq!(longest, Some(MS * 100));
}

#[test]
fn jitter_stays_within_its_bounds_and_keeps_the_order() {
    let (arrived, _) = run(&["delay=50ms", "jitter=20ms"], 10_000, MS);
    assert!(arrived.is_sorted(), "in order");
    let times: Vec<Duration> = arrived.iter().map(|(n, at)| *at - MS * u32::try_from(*n).unwrap()).collect();
    assert!(times.iter().all(|time| (MS * 30..=MS * 70).contains(time)));
    // Apart by more than the jitter, nobody waits for anybody.
    let (arrived, _) = run(&["delay=50ms", "jitter=20ms"], 10_000, MS * 50);
    let mean =
        arrived.iter().map(|(n, at)| (*at - MS * 50 * u32::try_from(*n).unwrap()).as_secs_f64()).sum::<f64>()
            / 1e4;
    assert!(is_near(mean, 0.05, 0.02), "{mean}");
}

#[test]
fn reordered_and_duplicated_frames_are_as_many_as_asked_for() {
    let (arrived, counters) = run(&["delay=10ms", "reorder=2", "reorder-by=7ms"], 100_000, MS);
    assert!(is_near(counters.reordered as f64, 2000.0, 0.1), "{counters:?}");
    for (number, at) in &arrived {
        let took = *at - MS * u32::try_from(*number).unwrap();
        assert!(took == MS * 10 || took == MS * 17, "{took:?}");
    }
    let order = numbers(&arrived);
    let overtaken = order.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(is_near(overtaken as f64, counters.reordered as f64, 0.1), "{overtaken}");

    let (arrived, counters) = run(&["duplicate=10"], 50_000, MS);
    assert!(is_near(counters.duplicated as f64, 5000.0, 0.1), "{counters:?}");
    assert!(arrived.is_sorted());
}

#[test]
fn a_black_out_ends_by_itself_or_when_told() {
    let begin = Instant::now();
    let mut lane = Lane::new(Quality::default(), 0);
    lane.black_out(Some(begin + MS * 100));
    for n in 0..200 {
        lane.push(n, 100, begin + MS * n);
    }
    assert_eq!(lane.counters().blacked_out, 100);
    assert_eq!(lane.poll(begin + MS * 200), Some(100));
    lane.black_out(Some(begin + MS * 900));
    lane.push(0, 100, begin + MS * 300);
    lane.black_out(None);
    lane.push(1, 100, begin + MS * 300);
    assert_eq!(lane.counters().blacked_out, 101);
}

#[test]
fn a_change_counts_from_the_next_frame_on() {
    let begin = Instant::now();
    let mut lane = Lane::new(quality(&["delay=1s"]), 0);
    lane.push("slow", 100, begin);
    lane.set(quality(&["delay=10ms"]));
    lane.push("fast", 100, begin);
    assert_eq!(lane.poll(begin + MS * 10), Some("fast"));
    assert_eq!(lane.poll(begin + MS * 10), None);
    assert_eq!(lane.poll(begin + MS * 1000), Some("slow"));
}

#[test]
fn what_is_under_way_is_bounded_whatever_the_delay() {
    let now = Instant::now();
    let mut lane = Lane::new(quality(&["delay=60s"]), 0);
    (0..100).for_each(|n| lane.push(n, 1 << 20, now));
    assert_eq!((lane.counters().overflowed, lane.counters().lost), (36, 0));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let settings = ["loss=5", "burst=3", "delay=10ms", "jitter=5ms", "reorder=1", "duplicate=1"];
    assert_eq!(run(&settings, 5000, MS), run(&settings, 5000, MS));
    let with = |seed| {
        let mut lane = Lane::new(quality(&settings), seed);
        (0..500).for_each(|n| lane.push(n, 100, Instant::now()));
        lane.counters()
    };
    assert_ne!(with(1), with(2));
}

#[test]
fn settings_are_written_as_they_are_read() {
    let all = [
        "loss=3.5",
        "burst-up=8",
        "burst-loss=50",
        "rate=20mbit",
        "queue-down=64k",
        "delay=20ms",
        "jitter=1.5ms",
        "reorder=1",
        "reorder-by=3ms",
        "duplicate-up=0.01",
        "udp=blocked:53,3478",
        "cut=on",
        "seed=9",
    ];
    let link = Link::default().with(&all).unwrap();
    let text = toml::to_string(&link).unwrap();
    assert_eq!(toml::from_str::<Link>(&text).unwrap(), link, "{text}");
    let plain: Link = toml::from_str("loss = 3\ncut = true\ndelay-up = '20ms'\nseed = 9").unwrap();
    assert_eq!((plain.up.loss.to_string().as_str(), plain.cut, plain.seed), ("3", true, 9));
    assert_eq!((plain.up.delay.get(), plain.down.delay.get()), (MS * 20, Duration::ZERO));
    let mut link = link.with(&["burst=none", "queue=none", "burst-loss=none", "reorder-by=none"]).unwrap();
    link.set_all(&["delay=0", "jitter=0us", "reorder=0", "duplicate=0"]).unwrap();
    assert!(!link.is_emulated() && !link.is_perfect());

    for (wrong, hint) in [
        ("delay=20", "20ms"),
        ("delay=2h", "20ms"),
        ("delay=-1ms", "20ms"),
        ("queue=0", "64k"),
        ("burst=0", "frames"),
        ("loss=101", "between 0 and 100"),
        ("latency=5ms", "'latency'; there are: loss"),
        ("speed-up=1", "'speed-up'"),
        ("cut-up=on", "'cut-up'"),
        ("loss", "NAME=VALUE"),
        ("seed=x", "whole number"),
        ("rate=1bit", "20mbit"),
    ] {
        let error = Link::default().with(&[wrong]).unwrap_err().to_string();
        assert!(error.contains(hint), "{wrong}: {error}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_setting_or_a_mistake(name in "[a-z-]{0,12}", value in ".{0,16}") {
        let mut link = Link::default();
        let before = link.clone();
        for name in [name.as_str(), "loss", "rate", "delay-up", "queue", "burst", "udp"] {
            if link.set(name, &value).is_ok() {
                let text = toml::to_string(&link).unwrap();
                prop_assert_eq!(&toml::from_str::<Link>(&text).unwrap(), &link);
                link = before.clone();
            }
        }
    }
}
