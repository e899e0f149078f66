//! What is asked of a metashrew server's view functions, and what comes back.
//!
//! Knows nothing of who asks, or how it is sent.

/// A view and its input, at the height of the block that is evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    pub view: String,
    pub input: Vec<u8>,
}

/// The view's bytes, or what it said instead of them. Either means nothing unless the source held still.
pub type Answer = Result<Vec<u8>, ViewFailure>;

/// The source said that it could not answer; the transform is told, and may go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ViewFailure {
    pub message: String,
}
