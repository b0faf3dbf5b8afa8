//! Serving the interface. Under construction.
