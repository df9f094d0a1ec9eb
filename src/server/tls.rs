//! TLS driven directly on octets: ciphertext in, plaintext out, and the other way round.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

/// What a connection speaks below SMPP.
pub(super) enum Transport {
    /// SMPP on TCP.
    Plain,
    /// SMPP in TLS.
    Tls(Box<UnbufferedServerConnection>),
}

/// What came of a read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Octets used; what is left is part of a record and comes again.
    pub(super) used: usize,
    /// The peer has said that it sends nothing more.
    pub(super) is_closed: bool,
}

/// Largest plaintext in one record, and what encryption adds to it at most.
const RECORD_OCTETS: usize = 16 << 10;
const RECORD_OVERHEAD: usize = 64;

impl Transport {
    /// A TLS connection about to begin its handshake.
    ///
    /// # Errors
    /// The configuration does not allow one.
    pub(super) fn tls(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        UnbufferedServerConnection::new(config).map(|connection| Self::Tls(Box::new(connection)))
    }

    /// Whether a handshake is still under way.
    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Tls(connection) => connection.is_handshaking(),
        }
    }

    /// Takes what was read: plaintext goes behind `plain`, what must be sent in return behind `outgoing`.
    ///
    /// # Errors
    /// The peer broke the protocol; `outgoing` holds the alert that says so.
    pub(super) fn receive(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
    ) -> Result<Progress, rustls::Error> {
        let Self::Tls(connection) = self else {
            plain.extend_from_slice(incoming);
            return Ok(Progress { used: incoming.len(), is_closed: false });
        };
        let mut progress = Progress { used: 0, is_closed: false };
        let mut failure = None;
        loop {
            let UnbufferedStatus { mut discard, state } =
                connection.process_tls_records(&mut incoming[progress.used..]);
            let mut goes_on = true;
            match state {
                Ok(ConnectionState::ReadTraffic(mut records)) => {
                    while let Some(record) = records.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                plain.extend_from_slice(record.payload);
                            }
                            Err(error) => failure = Some(error),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let begin = outgoing.len();
                    let mut room = 1 << 10;
                    loop {
                        outgoing.resize(begin + room, 0);
                        match data.encode(&mut outgoing[begin..]) {
                            Ok(written) => {
                                outgoing.truncate(begin + written);
                                break;
                            }
                            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
                            Err(EncodeError::AlreadyEncoded) => {
                                outgoing.truncate(begin);
                                break;
                            }
                        }
                    }
                }
                // What was encoded is in `outgoing`, which is sent before anything else.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => progress.is_closed = true,
                Ok(ConnectionState::Closed) => {
                    progress.is_closed = true;
                    goes_on = false;
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => goes_on = false,
                // Early data is never offered by our configuration; other states are none that we know.
                Ok(_) => goes_on = false,
                Err(error) => {
                    // An alert may wait to be encoded: one more round fetches it.
                    goes_on = failure.is_none();
                    failure.get_or_insert(error);
                }
            }
            progress.used += discard;
            if !goes_on {
                return failure.map_or(Ok(progress), Err);
            }
        }
    }

    /// Encrypts `plain` behind `outgoing`; in as few records as it fits.
    ///
    /// # Errors
    /// The handshake is not over, or the keys are used up.
    pub(super) fn send(&mut self, plain: &[u8], outgoing: &mut Vec<u8>) -> Result<(), EncryptError> {
        let Self::Tls(connection) = self else {
            outgoing.extend_from_slice(plain);
            return Ok(());
        };
        let begin = outgoing.len();
        outgoing.resize(begin + plain.len() + (plain.len() / RECORD_OCTETS + 1) * RECORD_OVERHEAD, 0);
        let written = match connection.process_tls_records(&mut []).state {
            Ok(ConnectionState::WriteTraffic(mut writer)) => writer.encrypt(plain, &mut outgoing[begin..]),
            Ok(_) | Err(_) => Err(EncryptError::EncryptExhausted),
        };
        outgoing.truncate(begin + written.as_ref().copied().unwrap_or(0));
        written.map(|_| ())
    }

    /// Says goodbye, so that the peer knows nothing was cut off.
    pub(super) fn close(&mut self, outgoing: &mut Vec<u8>) {
        let Self::Tls(connection) = self else { return };
        let begin = outgoing.len();
        outgoing.resize(begin + RECORD_OVERHEAD, 0);
        let written = match connection.process_tls_records(&mut []).state {
            Ok(ConnectionState::WriteTraffic(mut writer)) => {
                writer.queue_close_notify(&mut outgoing[begin..]).unwrap_or(0)
            }
            Ok(_) | Err(_) => 0,
        };
        outgoing.truncate(begin + written);
    }
}
