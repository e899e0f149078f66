//! TLS to PostgreSQL by rustls, with the meaning that libpq gives to `sslmode`; and a root certificate that is given
//! is also used.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::DbError;
use crate::config::{self, Dsn};
use crate::file;

/// How the server's certificate is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trust {
    /// Not at all: what `prefer` and `require` mean.
    Any,
    System,
    /// The authorities in this file; `named` is how messages call it.
    File {
        path: PathBuf,
        named: String,
    },
}

/// What the configuration says of a connection: for tokio-postgres, and of the certificate.
pub(super) struct Plan {
    pub(super) postgres: tokio_postgres::Config,
    trust: Trust,
}

impl Plan {
    /// Reads the connection string. With a root certificate, the connection is encrypted and the certificate
    /// verified, whatever milder thing `sslmode` says; `disable` is a contradiction.
    pub(super) fn read(config: &config::Database) -> Result<Plan, DbError> {
        let mut dsn = Dsn::read(config.url.reveal()).map_err(|problem| DbError::Url(problem.to_owned()))?;
        let mode = dsn.parameter("sslmode");
        let mut trust = match mode.as_deref() {
            None | Some("disable" | "prefer" | "require") => Trust::Any,
            // A name that does not fit would mean nothing: what libpq calls `verify-ca` is as `verify-full` here.
            Some("verify-ca" | "verify-full") => Trust::System,
            Some(_) => {
                return Err(DbError::Tls(
                    "the database URL's `sslmode` is none of `disable`, `prefer`, `require`, `verify-ca` and \
                     `verify-full`"
                        .to_owned(),
                ));
            }
        };
        let root = match (&config.tls_root_cert, dsn.parameter("sslrootcert")) {
            (Some(path), _) => Some(("`database.tls_root_cert`", Trust::file(path, path.display()))),
            (None, Some(word)) if word == "system" => Some((SSL_ROOT_CERT, Trust::System)),
            (None, Some(path)) => Some((SSL_ROOT_CERT, Trust::file(path, "sslrootcert"))),
            (None, None) => None,
        };
        dsn.remove("sslrootcert");
        if let Some((whose, root)) = root {
            if mode.as_deref() == Some("disable") {
                return Err(DbError::Tls(format!(
                    "{whose} asks for TLS, and the database URL's `sslmode=disable` for none: take away the one or \
                     the other"
                )));
            }
            trust = root;
        }
        if trust != Trust::Any {
            dsn.set("sslmode", "require");
        }
        let mut postgres = dsn.parse().map_err(DbError::Url)?;
        if is_local(&postgres) {
            // Nothing leaves the machine's memory: as with libpq, `sslmode` says nothing of Unix sockets.
            postgres.ssl_mode(SslMode::Disable);
        }
        Ok(Plan { postgres, trust })
    }

    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, DbError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| DbError::Tls(format!("cannot set up TLS: {error}")))?;
        let config = match &self.trust {
            Trust::File { path, named } => {
                builder.with_root_certificates(roots(path, named)?).with_no_client_auth()
            }
            Trust::System => builder
                .with_platform_verifier()
                .map_err(|error| DbError::Tls(format!("cannot read the system's certificates: {error}")))?
                .with_no_client_auth(),
            Trust::Any => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth(),
        };
        Ok(MakeRustlsConnect::new(config))
    }

    /// The first host, beyond this machine, to which a password may go unencrypted.
    pub(super) fn clear_to(&self) -> Option<String> {
        let may_be_clear = self.postgres.get_ssl_mode() != SslMode::Require;
        if !may_be_clear || self.postgres.get_password().is_none() {
            return None;
        }
        let addresses = self.postgres.get_hostaddrs();
        if !addresses.is_empty() {
            return addresses.iter().find(|address| !address.is_loopback()).map(ToString::to_string);
        }
        self.postgres.get_hosts().iter().find_map(|host| match host {
            Host::Tcp(name) if !is_loopback(name) => Some(name.clone()),
            Host::Tcp(_) | Host::Unix(_) => None,
        })
    }
}

const SSL_ROOT_CERT: &str = "the database URL's `sslrootcert`";

impl Trust {
    fn file(path: impl Into<PathBuf>, named: impl ToString) -> Trust {
        Trust::File { path: path.into(), named: named.to_string() }
    }
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether there are Unix sockets alone.
fn is_local(config: &tokio_postgres::Config) -> bool {
    let hosts = config.get_hosts();
    // An address is connected to in its host's place.
    config.get_hostaddrs().is_empty()
        && !hosts.is_empty()
        && hosts.iter().all(|host| matches!(host, Host::Unix(_)))
}

fn roots(path: &Path, named: &str) -> Result<RootCertStore, DbError> {
    let wrong = |error: &dyn std::fmt::Display| {
        DbError::Tls(format!("cannot read root certificates from `{named}`: {error}"))
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

    fn plan(url: &str, root: Option<&str>) -> Result<Plan, String> {
        Plan::read(&config::Database {
            url: config::Secret::new(url),
            tls_root_cert: root.map(PathBuf::from),
            pool_size: 1,
            connect_timeout: std::time::Duration::from_secs(1),
            read_roles: Vec::new(),
            write_roles: Vec::new(),
            owner_role: None,
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn the_mode_and_what_is_verified_follow_from_sslmode_and_the_root_certificate() {
        let file = |path: &str, named: &str| Trust::file(path, named);
        for (url, root, mode, trust) in [
            ("postgres://u@h/d", None, SslMode::Prefer, Trust::Any),
            ("postgres://u@h/d?sslmode=disable", None, SslMode::Disable, Trust::Any),
            ("postgres://u@h/d?sslmode=require", None, SslMode::Require, Trust::Any),
            ("host=h user=u sslmode='verify-ca'", None, SslMode::Require, Trust::System),
            ("postgres://u@h/d?sslrootcert=system", None, SslMode::Require, Trust::System),
            ("postgres://u@h/d", Some("ca.pem"), SslMode::Require, file("ca.pem", "ca.pem")),
            ("host=h sslmode=prefer", Some("ca.pem"), SslMode::Require, file("ca.pem", "ca.pem")),
            ("host=h sslrootcert = '/a b'", None, SslMode::Require, file("/a b", "sslrootcert")),
            ("host=h sslrootcert=/a", Some("ca.pem"), SslMode::Require, file("ca.pem", "ca.pem")),
            ("postgres:///d?host=/tmp&sslmode=verify-full", None, SslMode::Disable, Trust::System),
            ("host=/tmp hostaddr=10.0.0.1 sslmode=verify-full", None, SslMode::Require, Trust::System),
            ("postgres:///d?host=/tmp", Some("ca.pem"), SslMode::Disable, file("ca.pem", "ca.pem")),
        ] {
            let plan = plan(url, root).unwrap();
            assert_eq!((plan.postgres.get_ssl_mode(), plan.trust), (mode, trust), "{url}");
        }
    }

    #[test]
    fn contradictions_and_unknown_modes_are_refused() {
        for (url, root, expected) in [
            ("host=h sslmode=disable", Some("ca.pem"), "`database.tls_root_cert` asks for TLS"),
            ("host=h sslmode=disable sslrootcert=/a", None, "the database URL's `sslrootcert` asks for TLS"),
            ("host=h sslmode=allow", None, "is none of `disable`"),
        ] {
            let error = plan(url, root).err().unwrap();
            assert!(error.contains(expected), "{url}: {error}");
        }
    }

    #[test]
    fn it_is_known_where_a_password_may_go_unencrypted() {
        for (url, expected) in [
            ("postgres://u:p@db.example/d", Some("db.example")),
            ("postgres://u:p@localhost,db/d?sslmode=disable", Some("db")),
            ("host=localhost hostaddr=10.0.0.1 password=p", Some("10.0.0.1")),
            ("postgres://u:p@db/d?sslmode=require", None),
            ("postgres://u:p@db/d?sslrootcert=/a", None),
            ("postgres://u@db/d", None),
            ("postgres://u:p@127.0.0.9,[::1],localhost/d", None),
            ("host=/tmp password=p", None),
        ] {
            assert_eq!(plan(url, None).unwrap().clear_to().as_deref(), expected, "{url}");
        }
    }
}
