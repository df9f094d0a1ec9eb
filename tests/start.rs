//! Starting: what can be in the way, and what is said about it.
