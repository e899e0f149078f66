//! TLS and SASL as `krafka` wants them told.

use std::path::Path;

use krafka::auth::{AuthConfig, TlsConfig};

use super::client::{ClientError, Trouble};
use crate::config::{self, Mechanism, Secret};
use crate::file;

/// What every connection is set up with; nothing for one in clear and without a login.
pub(super) fn security(settings: &config::Kafka) -> Result<Option<AuthConfig>, ClientError> {
    let tls = settings.tls.as_ref().map(tls).transpose()?;
    match (&settings.sasl, tls) {
        (None, None) => Ok(None),
        (None, Some(tls)) => Ok(Some(AuthConfig::ssl(tls))),
        (Some(login), None) => sasl(login).map(Some),
        (Some(login), Some(tls)) => Ok(Some(sasl(login)?.with_tls(tls))),
    }
}

/// Whether the login goes over the wire as it is.
pub(super) fn is_login_in_clear(settings: &config::Kafka) -> bool {
    let tells = |sasl: &config::Sasl| match sasl.mechanism {
        Mechanism::Plain | Mechanism::OauthBearer => true,
        Mechanism::ScramSha256 | Mechanism::ScramSha512 => false,
    };
    settings.tls.is_none() && settings.sasl.as_ref().is_some_and(tells)
}

/// What is never to be shown, should a broker repeat it.
pub(super) fn secrets(settings: &config::Kafka) -> Vec<Secret> {
    let sasl = settings.sasl.iter();
    let all = sasl.flat_map(|sasl| [&sasl.password, &sasl.token]).flatten();
    all.filter(|secret| !secret.reveal().is_empty()).cloned().collect()
}

fn sasl(sasl: &config::Sasl) -> Result<AuthConfig, ClientError> {
    let login = || {
        let user = sasl.username.as_ref().ok_or_else(|| missing("`sasl.username`"))?;
        let password = sasl.password.as_ref().ok_or_else(|| missing("`sasl.password`"))?;
        Ok((user.as_str(), password.reveal()))
    };
    match sasl.mechanism {
        Mechanism::Plain => login().map(|(user, password)| AuthConfig::sasl_plain(user, password)),
        Mechanism::ScramSha256 => {
            login().map(|(user, password)| AuthConfig::sasl_scram_sha256(user, password))
        }
        Mechanism::ScramSha512 => {
            login().map(|(user, password)| AuthConfig::sasl_scram_sha512(user, password))
        }
        Mechanism::OauthBearer => {
            let token = sasl.token.as_ref().ok_or_else(|| missing("`sasl.token`"))?;
            Ok(AuthConfig::sasl_oauthbearer(token.reveal()))
        }
    }
}

fn tls(tls: &config::Tls) -> Result<TlsConfig, ClientError> {
    let trusting = match &tls.root_cert {
        None => TlsConfig::new().with_native_roots(),
        Some(path) => TlsConfig::new().with_ca_cert_pem(read(path, "`tls.root_cert`")?),
    };
    match (&tls.cert, &tls.key) {
        (None, None) => Ok(trusting),
        (Some(cert), Some(key)) => {
            Ok(trusting.with_client_cert_pem(read(cert, "`tls.cert`")?, read(key, "`tls.key`")?))
        }
        (Some(_), None) => Err(missing("`tls.key`")),
        (None, Some(_)) => Err(missing("`tls.cert`")),
    }
}

fn read(path: &Path, key: &str) -> Result<Vec<u8>, ClientError> {
    file::read(path, file::CERTIFICATES).map_err(|error| ClientError {
        trouble: Trouble::Refused,
        message: format!("cannot read {key} from `{}`: {error}", path.display()),
    })
}

fn missing(key: &str) -> ClientError {
    ClientError { trouble: Trouble::Refused, message: format!("{key} is missing") }
}
