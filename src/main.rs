//! `ria`: the agent of a robot or laptop, and its command line.

mod daemon;

fn main() {}
