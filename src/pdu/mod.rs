//! The wire format of SMPP: octets to values and back.

pub mod coding;
pub mod receipt;
pub mod segment;
pub mod udh;
