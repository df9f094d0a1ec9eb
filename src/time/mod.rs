//! Points in time as plain integers, without a clock.
