//! The agent as a running program: one loop that owns everything, and what feeds it.

pub mod handle;
