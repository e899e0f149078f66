//! What can be done about an error of `krafka`'s.

use krafka::error::ErrorCode;
use krafka::{KrafkaError, ProtocolErrorKind};

use super::client::{ClientError, Trouble};
use crate::config::Secret;
use crate::failure::chain;

/// An error with what was tried, and without secrets that a broker may have repeated.
pub(super) fn told(error: KrafkaError, secrets: &[Secret], what: &str) -> ClientError {
    const LONGEST: usize = 600;
    let said = secrets.iter().fold(chain(&error), |text, secret| text.replace(secret.reveal(), "…"));
    let said: String = said.chars().take(LONGEST).collect();
    ClientError { trouble: trouble(&error), message: format!("{what}: {said}") }
}

fn trouble(error: &KrafkaError) -> Trouble {
    match error {
        KrafkaError::Auth { .. } => Trouble::Denied,
        KrafkaError::Fenced { .. } => Trouble::Fenced,
        KrafkaError::Broker { code, .. } => trouble_of(*code),
        KrafkaError::Config { .. } | KrafkaError::Compression { .. } => Trouble::Refused,
        KrafkaError::Protocol { kind: ProtocolErrorKind::UnknownApiVersion, .. } => Trouble::Refused,
        KrafkaError::Protocol { kind: ProtocolErrorKind::FrameTooLarge, .. } => Trouble::TooLarge,
        _ => Trouble::Passing,
    }
}

fn trouble_of(code: ErrorCode) -> Trouble {
    match code {
        ErrorCode::TopicAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::ClusterAuthorizationFailed
        | ErrorCode::TransactionalIdAuthorizationFailed
        | ErrorCode::SaslAuthenticationFailed
        | ErrorCode::UnsupportedSaslMechanism
        | ErrorCode::IllegalSaslState
        | ErrorCode::SecurityDisabled => Trouble::Denied,
        ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch => Trouble::Fenced,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => Trouble::TooLarge,
        ErrorCode::InvalidTopic
        | ErrorCode::InvalidConfig
        | ErrorCode::InvalidPartitions
        | ErrorCode::InvalidRecord
        | ErrorCode::InvalidTransactionTimeout
        | ErrorCode::PolicyViolation
        | ErrorCode::UnsupportedVersion
        | ErrorCode::UnsupportedForMessageFormat => Trouble::Refused,
        _ => Trouble::Passing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    #[test]
    fn what_may_pass_is_waited_for_and_nothing_else() {
        let broker = |code| KrafkaError::broker(code, "said so");
        for (error, kind) in [
            (KrafkaError::timeout("it"), Kind::Transient),
            (KrafkaError::delivery_timeout(true, "it"), Kind::Transient),
            (broker(ErrorCode::NotEnoughReplicas), Kind::Transient),
            // Brokers may come back.
            (broker(ErrorCode::InvalidReplicationFactor), Kind::Transient),
            (broker(ErrorCode::UnknownTopicOrPartition), Kind::Transient),
            (broker(ErrorCode::CoordinatorNotAvailable), Kind::Transient),
            (KrafkaError::auth("no"), Kind::Permanent),
            (KrafkaError::fenced("no"), Kind::Permanent),
            (broker(ErrorCode::ProducerFenced), Kind::Permanent),
            (broker(ErrorCode::TopicAuthorizationFailed), Kind::Permanent),
            (broker(ErrorCode::TransactionalIdAuthorizationFailed), Kind::Permanent),
            (broker(ErrorCode::MessageTooLarge), Kind::Permanent),
            (broker(ErrorCode::InvalidTopic), Kind::Permanent),
            (KrafkaError::protocol_kind(ProtocolErrorKind::UnknownApiVersion, "no"), Kind::Permanent),
        ] {
            assert_eq!(trouble(&error).kind(), kind, "{error}");
        }
    }

    #[test]
    fn what_a_broker_repeats_is_shortened_and_without_secrets() {
        let secrets = [Secret::new("sesame")];
        let error =
            told(KrafkaError::auth(format!("no sesame {}", "x".repeat(5_000))), &secrets, "cannot do it");
        assert!(error.message.starts_with("cannot do it: authentication error: no … x"), "{error}");
        assert!(error.message.len() < 700);
    }
}
