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
