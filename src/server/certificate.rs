//! TLS certificates: from files, or made on the spot for a first start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Config;
use crate::server::durable_file;

/// The certificate and key to use: the configured ones, or our own under the data directory.
pub(super) fn paths(config: &Config) -> (PathBuf, PathBuf) {
    match (&config.tls_certificate, &config.tls_key) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
        _ => {
            let folder = config.data_dir.join("tls");
            (folder.join("cert.pem"), folder.join("key.pem"))
        }
    }
}

/// Makes a self-signed certificate when none is configured and none was made before. Whether it did.
///
/// # Errors
/// It cannot be written.
pub(super) fn ensure(config: &Config) -> Result<bool, String> {
    let (certificate, key) = paths(config);
    if config.tls_certificate.is_some() || (certificate.exists() && key.exists()) {
        return Ok(false);
    }
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| format!("no certificate could be made: {error}"))?;
    let write = |path: &Path, text: &str, mode: u32| {
        durable_file::replace(path, text, mode).map_err(|error| format!("{}: {error}", path.display()))
    };
    write(&key, &made.signing_key.serialize_pem(), 0o600)?;
    write(&certificate, &made.cert.pem(), 0o644)?;
    Ok(true)
}

/// Reads certificate and key.
///
/// # Errors
/// A file is missing, unreadable, or holds no certificate or key, or the two do not belong together.
pub(super) fn load(config: &Config) -> Result<Arc<ServerConfig>, String> {
    let (certificate, key) = paths(config);
    let in_certificate = |error: &dyn std::fmt::Display| format!("{}: {error}", certificate.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&certificate)
        .map_err(|error| in_certificate(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| in_certificate(&error))?;
    if chain.is_empty() {
        return Err(in_certificate(&"no certificate in PEM form"));
    }
    let private =
        PrivateKeyDer::from_pem_file(&key).map_err(|error| format!("{}: {error}", key.display()))?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))?;
    // Resumption saves nothing worth having with the keys we make; one ticket serves clients that insist.
    tls.send_tls13_tickets = 1;
    Ok(Arc::new(tls))
}
