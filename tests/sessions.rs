//! Sessions against the built server.
