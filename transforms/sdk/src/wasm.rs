//! What the module's export does, in both versions of the interface.

use crate::abi::wasm::{here, Host};
use crate::{Block, Transform};

/// What `process_block` does: 0 when all went well, -1 after a failure, and in version 1 where the list of changes
/// is if there are any.
pub fn run<T: Transform>() -> i32 {
    std::panic::set_hook(Box::new(|panic| Host::default().stderr(&panic.to_string())));
    let (height, hash) = match here() {
        Ok(here) => here,
        Err(problem) => {
            Host::default().stderr(&problem);
            return -1;
        }
    };
    let mut block = Block::new::<T>(Host::default(), height, hash);
    let result = T::process_block(&mut block);
    let (mut host, changes) = block.finish();
    match result {
        Ok(()) => {
            let list = changes.finish(&mut host);
            // The instance ends with this block: the host reads the list before it lets go of it.
            if list.is_empty() {
                0
            } else {
                list.leak().as_ptr() as i32
            }
        }
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            host.stderr(&text);
            -1
        }
    }
}
