//! The wire format of SMPP: octets to values and back.
