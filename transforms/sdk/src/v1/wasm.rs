//! The module's border in version 1: the functions that it imports from its host. Unsafe, since a call over the
//! border is a pointer to the module's memory.
#![allow(unsafe_code)]

use crate::Hash;

/// The imports of binary interface version 1. A *buffer* is a length of 4 bytes, little-endian, and as many
/// bytes.
mod import {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        #[link_name = "__height"]
        pub(super) safe fn height() -> i32;
        #[link_name = "__block_hash"]
        pub(super) safe fn block_hash() -> i32;
        #[link_name = "__view"]
        pub(super) fn view(name: *const u8, input: *const u8) -> i32;
        #[link_name = "__load"]
        pub(super) fn load(to: *mut u8);
        #[link_name = "__get_state"]
        pub(super) fn get_state(key: *const u8) -> i32;
        #[link_name = "__set_state"]
        pub(super) fn set_state(key: *const u8, value: *const u8) -> i32;
        #[link_name = "__delete_state"]
        pub(super) fn delete_state(key: *const u8) -> i32;
        #[link_name = "__stdout"]
        pub(super) fn stdout(text: *const u8);
        #[link_name = "__stderr"]
        pub(super) fn stderr(text: *const u8);
    }
}

/// What a block asks of its host. Keeps two buffers, to make none for each call.
#[derive(Default)]
pub(crate) struct Host {
    first: Vec<u8>,
    second: Vec<u8>,
}

fn fill(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    buffer.extend_from_slice(bytes);
}

/// Fetches the pending result, which the host said to be this long.
fn load(length: usize) -> Vec<u8> {
    let mut result = vec![0; length];
    // SAFETY: the host writes the pending result, whose length it has just given; the vector has that.
    unsafe { import::load(result.as_mut_ptr()) };
    result
}

/// Height and hash of the block.
pub(crate) fn here() -> Result<(u32, Hash), String> {
    let hash = load(usize::try_from(import::block_hash()).unwrap_or(0));
    match hash.try_into() {
        Ok(hash) => Ok((import::height() as u32, Hash(hash))),
        Err(hash) => Err(format!("the block's hash has {} bytes, not 32", hash.len())),
    }
}

impl Host {
    pub(crate) fn view(&mut self, name: &str, input: &[u8]) -> Option<Vec<u8>> {
        fill(&mut self.first, name.as_bytes());
        fill(&mut self.second, input);
        // SAFETY: both point to buffers that live through the call, which only reads them.
        let length = unsafe { import::view(self.first.as_ptr(), self.second.as_ptr()) };
        usize::try_from(length).ok().map(load)
    }

    pub(crate) fn get_state(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        fill(&mut self.first, key);
        // SAFETY: points to a buffer that lives through the call, which only reads it.
        let length = unsafe { import::get_state(self.first.as_ptr()) };
        usize::try_from(length).ok().filter(|length| *length > 0).map(load)
    }

    pub(crate) fn set_state(&mut self, key: &[u8], value: &[u8]) {
        fill(&mut self.first, key);
        fill(&mut self.second, value);
        // SAFETY: both point to buffers that live through the call, which only reads them.
        unsafe { import::set_state(self.first.as_ptr(), self.second.as_ptr()) };
    }

    pub(crate) fn delete_state(&mut self, key: &[u8]) -> bool {
        fill(&mut self.first, key);
        // SAFETY: points to a buffer that lives through the call, which only reads it.
        unsafe { import::delete_state(self.first.as_ptr()) == 1 }
    }

    pub(crate) fn stdout(&mut self, line: &str) {
        fill(&mut self.first, line.as_bytes());
        // SAFETY: points to a buffer that lives through the call, which only reads it.
        unsafe { import::stdout(self.first.as_ptr()) };
    }

    pub(crate) fn stderr(&mut self, line: &str) {
        fill(&mut self.first, line.as_bytes());
        // SAFETY: points to a buffer that lives through the call, which only reads it.
        unsafe { import::stderr(self.first.as_ptr()) };
    }
}
