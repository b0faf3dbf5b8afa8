//! `ria ping`: one line per probe as it comes, each with its way, and a summary. Unless a number is asked for, it ends
//! with the first probe that took a direct path.

use std::time::{Duration, Instant};

use ria_api::client::Network;
use ria_api::state::{PathKind, PingReply};
use serde::Serialize;

use super::Context;
use super::args::PingArgs;
use super::failure::{Failure, TIMED_OUT};
use super::output::{Colour, Output, millis};
use super::peers::way;

/// Probes unless a number is asked for: about as long as a direct path takes to be found where there is one.
const PATIENCE: u32 = 10;

/// The whole of it.
#[derive(Debug, Serialize)]
struct Summary {
    network: String,
    peer: String,
    sent: usize,
    received: usize,
    /// Share of probes without an answer, 0 to 1.
    loss: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_avg: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_max: Option<f64>,
    /// Number of the first probe that took a direct path.
    #[serde(skip_serializing_if = "Option::is_none")]
    direct_from: Option<u32>,
    replies: Vec<PingReply>,
}

pub async fn run(context: &Context, args: &PingArgs) -> Result<(), Failure> {
    let network = context.network(&args.network).await?;
    let mut replies = Vec::new();
    tokio::select! {
        done = probe(context.output, &network, args, &mut replies) => done?,
        // Ended by hand: what was seen is still told.
        _ = tokio::signal::ctrl_c() => {}
    }
    let summary = summarise(network.summary.name, args.peer.clone(), replies);
    if context.output.json {
        context.output.value(&summary)?;
    } else {
        context.output.line(in_words(&summary))?;
    }
    if summary.received > 0 || summary.sent == 0 {
        return Ok(());
    }
    if context.output.json {
        return Err(Failure::Silent { code: TIMED_OUT });
    }
    let text = format!("{} does not answer; see why: ria peers, ria status", args.peer);
    Err(Failure::new(TIMED_OUT, text))
}

async fn probe(
    output: Output,
    network: &Network,
    args: &PingArgs,
    replies: &mut Vec<PingReply>,
) -> Result<(), Failure> {
    let interval = Duration::from_secs_f64(args.interval);
    let most = args.count.unwrap_or(PATIENCE);
    for seq in 1..=most {
        let started = Instant::now();
        for reply in network.proxy.ping(&args.peer, 1, args.interval, args.timeout).await? {
            let reply = PingReply { seq, ..reply };
            if !output.json {
                output.line(line(output, &args.peer, &reply, args.timeout))?;
            }
            replies.push(reply);
        }
        if args.count.is_none() && replies.last().is_some_and(is_direct) {
            return Ok(());
        }
        if seq < most {
            tokio::time::sleep(interval.saturating_sub(started.elapsed())).await;
        }
    }
    Ok(())
}

fn is_direct(reply: &PingReply) -> bool {
    reply.ok && reply.path == PathKind::Direct
}

fn line(output: Output, peer: &str, reply: &PingReply, timeout: f64) -> String {
    let seq = reply.seq;
    match reply.rtt.filter(|_| reply.ok) {
        Some(rtt) => {
            let endpoint =
                if reply.endpoint.is_empty() { String::new() } else { format!(" {}", reply.endpoint) };
            format!("{peer}: seq {seq}, {}, {}{endpoint}", millis(rtt), way(reply.path))
        }
        None => output.paint(Colour::Bad, format!("{peer}: seq {seq}, no answer within {timeout} s")),
    }
}

#[allow(clippy::cast_precision_loss, reason = "at most a thousand probes")]
fn summarise(network: String, peer: String, replies: Vec<PingReply>) -> Summary {
    let times: Vec<f64> = replies.iter().filter(|r| r.ok).filter_map(|r| r.rtt).collect();
    let received = replies.iter().filter(|r| r.ok).count();
    let lost = (replies.len() - received) as f64;
    Summary {
        network,
        peer,
        sent: replies.len(),
        received,
        loss: if replies.is_empty() { 0.0 } else { lost / replies.len() as f64 },
        rtt_min: times.iter().copied().reduce(f64::min),
        rtt_avg: (!times.is_empty()).then(|| times.iter().sum::<f64>() / times.len() as f64),
        rtt_max: times.iter().copied().reduce(f64::max),
        direct_from: replies.iter().find(|reply| is_direct(reply)).map(|reply| reply.seq),
        replies,
    }
}

fn in_words(summary: &Summary) -> String {
    let mut text =
        format!("{} sent, {} answered, {:.0} % lost", summary.sent, summary.received, summary.loss * 100.0);
    if let (Some(min), Some(avg), Some(max)) = (summary.rtt_min, summary.rtt_avg, summary.rtt_max) {
        text += &format!("; min {}, average {}, max {}", millis(min), millis(avg), millis(max));
    }
    match summary.direct_from {
        Some(1) => text += "; direct",
        Some(seq) => text += &format!("; direct since probe {seq}"),
        None if summary.received > 0 => text += "; not direct, see why: ria netcheck",
        None => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_only_what_came_back() {
        let reply = |seq, rtt| PingReply {
            seq,
            ok: rtt > 0.0,
            rtt: Some(rtt).filter(|r| *r > 0.0),
            ..PingReply::default()
        };
        let summary = summarise(
            "lab".into(),
            "robot-2".into(),
            vec![reply(1, 0.010), reply(2, 0.0), reply(3, 0.030), reply(4, 0.0)],
        );
        assert_eq!((summary.sent, summary.received), (4, 2));
        assert_eq!(
            in_words(&summary),
            "4 sent, 2 answered, 50 % lost; min 10.0 ms, average 20.0 ms, max 30.0 ms; not direct, see why: ria \
             netcheck"
        );
        assert!(summarise("lab".into(), "x".into(), vec![]).rtt_avg.is_none());
    }

    #[test]
    fn the_summary_says_since_when_the_path_is_direct() {
        let reply = |seq, path| PingReply { seq, ok: true, rtt: Some(0.010), path, ..PingReply::default() };
        let replies = vec![reply(1, PathKind::RelayUdp), reply(2, PathKind::Direct)];
        let summary = summarise("lab".into(), "robot-2".into(), replies);
        assert_eq!(summary.direct_from, Some(2));
        assert!(in_words(&summary).ends_with("; direct since probe 2"), "{}", in_words(&summary));
    }
}
