//! TLS to PostgreSQL by rustls, with the meaning that libpq gives to `sslmode`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::DbError;
use crate::file;

/// A connection string in the words that tokio-postgres knows, and what it does not know of it.
pub(super) struct Dsn {
    pub(super) text: String,
    verify: bool,
    root_cert: Option<PathBuf>,
}

impl Dsn {
    /// Takes `sslmode=verify-ca`, `sslmode=verify-full` and `sslrootcert` out of a URL or a `key=value` string.
    pub(super) fn read(text: &str) -> Result<Dsn, DbError> {
        let mut dsn = Dsn { text: text.to_owned(), verify: false, root_cert: None };
        if let Some(mode) = parameter(text, "sslmode") {
            match mode {
                "disable" | "prefer" | "require" => {}
                "verify-ca" | "verify-full" => {
                    dsn.verify = true;
                    dsn.text = dsn.text.replace(&format!("sslmode={mode}"), "sslmode=require");
                }
                other => {
                    return Err(DbError::Tls(format!(
                        "the database URL says `sslmode={other}`; it may be `disable`, `prefer`, `require`, \
                         `verify-ca` or `verify-full`"
                    )));
                }
            }
        }
        if let Some(path) = parameter(text, "sslrootcert").map(str::to_owned) {
            let pair = format!("sslrootcert={path}");
            for cut in [format!("&{pair}"), format!("{pair}&"), format!("?{pair}"), pair] {
                dsn.text = dsn.text.replacen(&cut, "", 1);
            }
            dsn.root_cert = Some(path.into());
        }
        Ok(dsn)
    }
}

fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let parameters = if url { text.split_once('?')?.1 } else { text };
    let between = if url { '&' } else { ' ' };
    parameters.split(between).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// A connector that verifies the server's certificate when the DSN asks for it (`verify-ca` is taken as
/// `verify-full`) or a root certificate is given, and like libpq does not for `prefer` and `require`.
pub(super) fn connector(dsn: &Dsn, root_cert: Option<&Path>) -> Result<MakeRustlsConnect, DbError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| DbError::Tls(format!("cannot set up TLS: {error}")))?;
    let config = match root_cert.or(dsn.root_cert.as_deref()) {
        Some(path) => builder.with_root_certificates(roots(path)?).with_no_client_auth(),
        None if dsn.verify => builder
            .with_platform_verifier()
            .map_err(|error| DbError::Tls(format!("cannot read the system's certificates: {error}")))?
            .with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn roots(path: &Path) -> Result<RootCertStore, DbError> {
    let wrong = |error: &dyn std::fmt::Display| {
        DbError::Tls(format!("cannot read root certificates from `{}`: {error}", path.display()))
    };
    let mut store = RootCertStore::empty();
    let pem = file::read(path, file::CERTIFICATES).map_err(|error| wrong(&error))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        store.add(certificate).map_err(|error| wrong(&error))?;
    }
    if store.is_empty() {
        return Err(wrong(&"it holds no PEM certificate"));
    }
    Ok(store)
}

/// Encryption without authentication: what `sslmode=require` means (PostgreSQL's manual, "SSL Support").
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verification_is_taken_from_urls_and_from_key_value_strings() {
        let url = Dsn::read("postgres://u@h/d?sslmode=verify-full&sslrootcert=/ca.pem").unwrap();
        assert_eq!(url.text, "postgres://u@h/d?sslmode=require");
        assert!(url.verify);
        assert_eq!(url.root_cert.as_deref(), Some(Path::new("/ca.pem")));
        let pairs = Dsn::read("host=h user=u sslmode=verify-ca").unwrap();
        assert_eq!(pairs.text, "host=h user=u sslmode=require");
        assert!(pairs.verify);
        assert!(!Dsn::read("postgres://u@h/d").unwrap().verify);
        assert!(Dsn::read("postgres://u@h/d?sslmode=allow").is_err());
    }
}
