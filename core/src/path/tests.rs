//! One path: when it is probed, when it is given up, and which of several is chosen.

use super::choice::{REASON_DIRECT, REASON_QUICKER, choose};
use super::*;

#[allow(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
fn start() -> Instant {
    Instant::now()
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 41_820))
}

fn proven(address: Address, rtt: Duration, now: Instant) -> Path {
    let mut path = Path::new(address, true);
    for echo in 0..5 {
        path.handle_ping_sent(echo, now);
        assert!(path.handle_pong(echo, now + rtt).is_some());
    }
    path
}

/// Runs one path alone, answered or not, and returns when which pings went and how it ended.
fn run(path: &mut Path, pace: Pace, from: Instant, until: Duration) -> (Vec<Duration>, Option<Duration>) {
    let (mut now, mut pings, mut died) = (from, Vec::new(), None);
    for echo in 1000.. {
        match path.handle_timeout(pace, now) {
            Due::Nothing => {}
            due @ (Due::Ping | Due::Died) => {
                died = died.or((due == Due::Died).then(|| now - from));
                path.handle_ping_sent(echo, now);
                pings.push(now - from);
            }
        }
        now = now.max(path.deadline(pace, now));
        if now - from > until {
            break;
        }
    }
    (pings, died)
}

#[test]
fn a_busy_path_that_goes_silent_dies_within_nine_tenths_of_a_second() {
    let begin = start();
    let mut path = proven(Address::Direct(address(1)), ms(20), begin);
    let (pings, died) = run(&mut path, Pace::Busy, begin, ms(2000));
    assert!(died.is_some_and(|at| at <= ms(900)), "{died:?}");
    assert!(pings.iter().filter(|at| **at <= died.unwrap()).count() <= 6, "{pings:?}");
    assert_eq!(path.state, PathState::Dead);
}

#[test]
fn one_lost_ping_makes_a_path_suspect_and_one_pong_clears_it() {
    let begin = start();
    let mut path = proven(Address::Direct(address(1)), ms(10), begin);
    path.handle_ping_sent(50, begin + ms(400));
    path.handle_timeout(Pace::Busy, begin + ms(520));
    assert!(path.is_suspect());
    path.handle_ping_sent(51, begin + ms(520));
    assert_eq!(path.handle_pong(51, begin + ms(530)), Some(ms(10)));
    assert!(!path.is_suspect());
    assert_eq!(path.deadline(Pace::Busy, begin + ms(530)), begin + ms(920));
}

#[test]
fn the_deviation_of_round_trips_follows_them() {
    let begin = start();
    let mut path = Path::new(Address::Direct(address(1)), true);
    assert_eq!(path.measured_deviation(), None);
    path.handle_ping_sent(1, begin);
    path.handle_pong(1, begin + ms(20));
    assert_eq!(path.measured_deviation(), Some(ms(10)));
    let mut answer_after = |number: u64, rtt: Duration| {
        let at = begin + ms(1000 * number);
        path.handle_ping_sent(100 + number, at);
        path.handle_pong(100 + number, at + rtt);
        path.measured_deviation().unwrap()
    };
    let steady = (1..20).map(|number| answer_after(number, ms(20))).last().unwrap();
    assert!(steady < ms(1), "{steady:?}");
    let shaky = (20..40).map(|number| answer_after(number, ms(20 + 40 * (number % 2)))).last().unwrap();
    assert!((ms(15)..ms(25)).contains(&shaky), "{shaky:?}");
}

#[test]
fn a_pong_is_taken_once() {
    let begin = start();
    let mut path = Path::new(Address::Direct(address(1)), true);
    path.handle_ping_sent(7, begin);
    assert_eq!(path.handle_pong(8, begin), None);
    assert!(path.handle_pong(7, begin + ms(3)).is_some());
    assert_eq!(path.handle_pong(7, begin + ms(4)), None);
}

#[test]
fn an_untested_path_gets_a_burst_and_then_less_and_less() {
    let begin = start();
    let mut path = Path::new(Address::Direct(address(1)), true);
    let (pings, _) = run(&mut path, Pace::Standby, begin, Duration::from_secs(300));
    assert!(pings[7] <= ms(700), "{pings:?}");
    let late: Vec<_> = pings.iter().filter(|at| **at > Duration::from_secs(120)).collect();
    assert!((15..=21).contains(&late.len()), "three every 30 s: {late:?}");

    let mut sought = Path::new(Address::Direct(address(1)), true);
    let (pings, _) = run(&mut sought, Pace::Seek(begin), begin, Duration::from_secs(299));
    let gaps = pings.windows(2).map(|pair| pair[1] - pair[0]);
    assert_eq!(gaps.max(), Some(ms(1000)), "a link is sought every second in the first minutes");
}

#[test]
fn direct_goes_before_relayed_however_slow() {
    let now = start();
    let relay = proven(Address::Relayed(Transport::Udp, address(9)), ms(5), now);
    let direct = proven(Address::Direct(address(1)), ms(80), now);
    let paths = [relay, direct];
    assert_eq!(choose(&paths, None), Some((1, REASON_DIRECT)));
    assert_eq!(choose(&paths, Some(0)), Some((1, REASON_DIRECT)));
    assert_eq!(choose(&paths[..1], None).map(|(index, _)| index), Some(0));
    assert_eq!(choose(&[], None), None);
}

#[test]
fn a_path_of_the_same_class_must_be_clearly_quicker() {
    let now = start();
    let kept = proven(Address::Direct(address(1)), ms(20), now);
    let equal = proven(Address::Direct(address(2)), ms(16), now);
    let quicker = proven(Address::Direct(address(3)), ms(9), now);
    assert_eq!(choose(&[kept, equal], Some(0)).map(|(index, _)| index), Some(0));
    let kept = proven(Address::Direct(address(1)), ms(20), now);
    assert_eq!(choose(&[kept, quicker], Some(0)), Some((1, REASON_QUICKER)));
}

#[test]
fn loss_is_estimated_from_unanswered_pings() {
    let begin = start();
    let mut path = proven(Address::Direct(address(1)), ms(10), begin);
    let mut now = begin;
    for echo in 100..400 {
        now += ms(400);
        path.handle_timeout(Pace::Busy, now);
        path.handle_ping_sent(echo, now);
        if echo % 5 != 0 {
            path.handle_pong(echo, now + ms(10));
        }
    }
    assert!((0.1..0.35).contains(&path.loss()), "{}", path.loss());
}

#[test]
fn pings_into_the_void_before_a_path_works_are_no_loss() {
    let begin = start();
    let mut path = Path::new(Address::Direct(address(1)), true);
    for echo in 0..8 {
        path.handle_ping_sent(echo, begin + ms(100 * echo));
    }
    assert!(path.handle_pong(7, begin + ms(710)).is_some());
    path.handle_timeout(Pace::Quiet, begin + ms(5000));
    assert!(path.loss() < f32::EPSILON, "{}", path.loss());
    // The same for a path that has been dead.
    let (_, died) = run(&mut path, Pace::Busy, begin + ms(5000), ms(1500));
    assert!(died.is_some());
    path.handle_ping_sent(2000, begin + ms(7000));
    assert!(path.handle_pong(2000, begin + ms(7010)).is_some());
    path.handle_timeout(Pace::Quiet, begin + ms(9000));
    assert!(path.loss() < 0.1, "{}", path.loss());
}

#[test]
fn what_went_to_a_run_of_the_peer_that_has_ended_is_no_loss() {
    let begin = start();
    let mut path = proven(Address::Direct(address(1)), ms(10), begin);
    for echo in 10..13 {
        path.handle_ping_sent(echo, begin + ms(100 * echo));
    }
    path.handle_timeout(Pace::Busy, begin + ms(2150));
    assert!(path.loss() > 0.05, "{}", path.loss());
    // The next run answers; one ping of before is not given up yet.
    path.handle_ping_sent(13, begin + ms(2200));
    assert!(path.handle_pong(13, begin + ms(2210)).is_some());
    path.measure_anew(begin + ms(2210));
    path.handle_timeout(Pace::Quiet, begin + ms(5000));
    assert!(path.loss() < f32::EPSILON, "{}", path.loss());
    // What is lost from here on counts.
    path.handle_ping_sent(14, begin + ms(5000));
    path.handle_timeout(Pace::Quiet, begin + ms(6100));
    assert!(path.loss() > 0.05, "{}", path.loss());
}
