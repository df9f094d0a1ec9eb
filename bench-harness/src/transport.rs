//! What lies below SMPP: TCP alone, or TLS in it.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// What a connection speaks below SMPP.
pub(crate) enum Transport {
    Plain,
    Tls(Box<ClientConnection>),
}

/// How TLS is spoken with the server.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Trusts the certificates of a PEM file, for the name `name`; with `insecure`, any certificate.
    ///
    /// # Errors
    /// The file cannot be read or holds no certificate, or the name is none.
    pub(crate) fn new(roots: Option<&Path>, insecure: bool, name: &str) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = if insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth()
        } else {
            let path = roots.ok_or("TLS needs --tls-ca FILE or --tls-insecure")?;
            let mut store = RootCertStore::empty();
            let unreadable = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                store.add(certificate).map_err(|error| unreadable(&error))?;
            }
            if store.is_empty() {
                return Err(unreadable(&"no certificate in it"));
            }
            builder.with_root_certificates(store).with_no_client_auth()
        };
        // Every handshake is a full one: a ticket would make a storm of binds look cheaper than it is.
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(name.to_owned()).map_err(|error| format!("{name:?}: {error}"))?;
        Ok(Self { config: Arc::new(config), name })
    }

    /// A connection about to begin its handshake.
    pub(crate) fn connect(&self) -> Result<Transport, String> {
        let mut connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .map_err(|error| error.to_string())?;
        // What waits to be sent waits in its own buffer; a limit would cut writes short.
        connection.set_buffer_limit(None);
        Ok(Transport::Tls(Box::new(connection)))
    }
}

impl Transport {
    pub(crate) fn is_handshaking(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Tls(connection) => connection.is_handshaking(),
        }
    }

    /// The TLS version spoken, once it is agreed.
    pub(crate) fn version(&self) -> Option<String> {
        match self {
            Self::Plain => None,
            Self::Tls(connection) => connection
                .protocol_version()
                .and_then(|version| version.as_str().map(|name| name.replace("TLSv1_", "TLS 1."))),
        }
    }

    /// Takes all of what was read; plaintext goes behind `plain`.
    ///
    /// # Errors
    /// The peer broke the protocol.
    pub(crate) fn receive(&mut self, mut incoming: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        let Self::Tls(connection) = self else {
            plain.extend_from_slice(incoming);
            return Ok(());
        };
        while !incoming.is_empty() {
            connection.read_tls(&mut incoming)?;
            let state = connection.process_new_packets().map_err(io::Error::other)?;
            let begin = plain.len();
            plain.resize(begin + state.plaintext_bytes_to_read(), 0);
            connection.reader().read_exact(&mut plain[begin..])?;
        }
        Ok(())
    }

    /// Puts `plain`, and what the handshake has to say, behind `outgoing`.
    ///
    /// # Errors
    /// The keys are used up.
    pub(crate) fn send(&mut self, plain: &[u8], outgoing: &mut Vec<u8>) -> io::Result<()> {
        let Self::Tls(connection) = self else {
            outgoing.extend_from_slice(plain);
            return Ok(());
        };
        connection.writer().write_all(plain)?;
        while connection.wants_write() {
            connection.write_tls(outgoing)?;
        }
        Ok(())
    }
}

/// Takes any certificate: for servers under test whose certificate nobody vouches for.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
