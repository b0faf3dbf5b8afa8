//! Connecting to the agent. Under construction.
