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

#[cfg(test)]
mod tests {
    use krafka::auth::{SaslMechanism, SecurityProtocol};

    use super::*;

    fn settings(tls: Option<config::Tls>, sasl: Option<config::Sasl>) -> config::Kafka {
        config::Kafka {
            brokers: vec!["localhost:9092".to_owned()],
            prefix: "shop".to_owned(),
            delivery: config::Delivery::ExactlyOnce,
            partitions: 1,
            replication: 1,
            max_message_bytes: 1_000_000,
            tls,
            sasl,
            timeout: std::time::Duration::from_secs(1),
        }
    }

    fn sasl(mechanism: Mechanism) -> config::Sasl {
        let [password, token] = ["a password", "a token"].map(|text| Some(Secret::new(text)));
        config::Sasl { mechanism, username: Some("someone".to_owned()), password, token }
    }

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/root.pem");

    fn tls() -> config::Tls {
        config::Tls { root_cert: Some(ROOT.into()), cert: None, key: None }
    }

    #[test]
    fn each_mechanism_is_asked_for_with_what_it_needs() {
        assert!(security(&settings(None, None)).unwrap().is_none());
        for (mechanism, asked) in [
            (Mechanism::Plain, SaslMechanism::Plain),
            (Mechanism::ScramSha256, SaslMechanism::ScramSha256),
            (Mechanism::ScramSha512, SaslMechanism::ScramSha512),
            (Mechanism::OauthBearer, SaslMechanism::OAuthBearer),
        ] {
            for (tls, protocol) in
                [(None, SecurityProtocol::SaslPlaintext), (Some(tls()), SecurityProtocol::SaslSsl)]
            {
                let security = security(&settings(tls, Some(sasl(mechanism)))).unwrap().unwrap();
                assert_eq!(security.sasl_mechanism(), Some(&asked));
                assert_eq!(*security.security_protocol(), protocol, "{mechanism:?}");
                let plain = security.plain_credentials().map(|login| login.to_auth_bytes().to_vec());
                assert_eq!(plain.is_some(), mechanism == Mechanism::Plain);
                assert!(plain.is_none_or(|plain| plain == b"\0someone\0a password"));
                let scram = matches!(mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha512);
                assert_eq!(security.scram_credentials().is_some(), scram);
                assert_eq!(security.oauthbearer_token().is_some(), mechanism == Mechanism::OauthBearer);
            }
        }
    }

    #[test]
    fn servers_are_verified_by_the_authorities_that_are_named_or_the_systems() {
        let of = |tls| security(&settings(Some(tls), None)).unwrap().unwrap();
        let own = of(tls());
        assert_eq!(*own.security_protocol(), SecurityProtocol::Ssl);
        assert!(!own.tls_config().unwrap().use_native_roots());
        let system = of(config::Tls { root_cert: None, ..tls() });
        assert!(system.tls_config().unwrap().use_native_roots());
        for security in [own, system] {
            assert!(security.tls_config().unwrap().verify_server_cert());
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let without = |change: fn(&mut config::Sasl), mechanism| {
            let mut sasl = sasl(mechanism);
            change(&mut sasl);
            security(&settings(None, Some(sasl))).unwrap_err()
        };
        for (error, expected) in [
            (without(|sasl| sasl.username = None, Mechanism::Plain), "`sasl.username` is missing"),
            (without(|sasl| sasl.password = None, Mechanism::ScramSha512), "`sasl.password` is missing"),
            (without(|sasl| sasl.token = None, Mechanism::OauthBearer), "`sasl.token` is missing"),
        ] {
            assert_eq!((error.message.as_str(), error.trouble), (expected, Trouble::Refused));
        }
        let with = |tls| security(&settings(Some(tls), None)).unwrap_err().message;
        assert_eq!(with(config::Tls { cert: Some(ROOT.into()), ..tls() }), "`tls.key` is missing");
        assert_eq!(with(config::Tls { key: Some(ROOT.into()), ..tls() }), "`tls.cert` is missing");
        let absent = with(config::Tls { root_cert: Some("absent.pem".into()), ..tls() });
        assert!(absent.starts_with("cannot read `tls.root_cert` from `absent.pem`"), "{absent}");
    }

    #[test]
    fn it_is_known_when_a_login_goes_in_clear_and_what_must_not_be_shown() {
        for (mechanism, in_clear) in
            [(Mechanism::Plain, true), (Mechanism::OauthBearer, true), (Mechanism::ScramSha256, false)]
        {
            assert_eq!(is_login_in_clear(&settings(None, Some(sasl(mechanism)))), in_clear);
            assert!(!is_login_in_clear(&settings(Some(tls()), Some(sasl(mechanism)))));
        }
        assert!(!is_login_in_clear(&settings(None, None)));
        let hidden = secrets(&settings(None, Some(sasl(Mechanism::Plain))));
        let hidden: Vec<&str> = hidden.iter().map(Secret::reveal).collect();
        assert_eq!(hidden, ["a password", "a token"]);
    }
}
