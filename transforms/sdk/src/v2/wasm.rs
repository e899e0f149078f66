//! The module's border in version 2: the functions that it imports from its host. Unsafe, since a call over the
//! border is a pointer to the module's memory.
#![allow(unsafe_code)]

use crate::Hash;

/// The imports. What a function reads comes as a pointer and a length.
mod import {
    #[link(wasm_import_module = "debshrew")]
    unsafe extern "C" {
        pub(super) safe fn height() -> i32;
        pub(super) fn block_hash(to: *mut u8);
        pub(super) fn view(name: *const u8, name_length: usize, input: *const u8, input_length: usize)
            -> i32;
        pub(super) fn load(to: *mut u8);
        pub(super) fn get_state(key: *const u8, length: usize) -> i32;
        pub(super) fn set_state(key: *const u8, key_length: usize, value: *const u8, value_length: usize);
        pub(super) fn delete_state(key: *const u8, length: usize) -> i32;
        pub(super) fn emit(batch: *const u8, length: usize);
        pub(super) fn stdout(text: *const u8, length: usize);
        pub(super) fn stderr(text: *const u8, length: usize);
        pub(super) fn sha256(from: *const u8, length: usize, to: *mut u8);
        pub(super) fn sha256d(from: *const u8, length: usize, to: *mut u8);
        pub(super) fn hex(from: *const u8, length: usize, to: *mut u8);
    }
}

/// What a block asks of its host.
#[derive(Default)]
pub(crate) struct Host {}

/// Height and hash of the block.
pub(crate) fn here() -> Result<(u32, Hash), String> {
    let mut hash = [0; 32];
    // SAFETY: the host writes 32 bytes, which the array has.
    unsafe { import::block_hash(hash.as_mut_ptr()) };
    Ok((import::height() as u32, Hash(hash)))
}

/// Fetches the pending result, which the host said to be this long.
fn load(length: usize) -> Vec<u8> {
    let mut result = vec![0; length];
    // SAFETY: the host writes the pending result, whose length it has just given; the vector has that.
    unsafe { import::load(result.as_mut_ptr()) };
    result
}

// SAFETY of all calls below: the host only reads what pointer and length say, which live through the call, and
// writes only where and as much as is said with the call.
impl Host {
    pub(crate) fn view(&mut self, name: &str, input: &[u8]) -> Option<Vec<u8>> {
        let length = unsafe { import::view(name.as_ptr(), name.len(), input.as_ptr(), input.len()) };
        usize::try_from(length).ok().map(load)
    }

    pub(crate) fn get_state(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let length = unsafe { import::get_state(key.as_ptr(), key.len()) };
        usize::try_from(length).ok().filter(|length| *length > 0).map(load)
    }

    pub(crate) fn set_state(&mut self, key: &[u8], value: &[u8]) {
        unsafe { import::set_state(key.as_ptr(), key.len(), value.as_ptr(), value.len()) };
    }

    pub(crate) fn delete_state(&mut self, key: &[u8]) -> bool {
        unsafe { import::delete_state(key.as_ptr(), key.len()) == 1 }
    }

    pub(crate) fn hand_over(&mut self, batch: &[u8]) {
        unsafe { import::emit(batch.as_ptr(), batch.len()) };
    }

    pub(crate) fn stdout(&mut self, line: &str) {
        unsafe { import::stdout(line.as_ptr(), line.len()) };
    }

    pub(crate) fn stderr(&mut self, line: &str) {
        unsafe { import::stderr(line.as_ptr(), line.len()) };
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    // SAFETY: the host writes 32 bytes, which the array has.
    unsafe { import::sha256(bytes.as_ptr(), bytes.len(), hash.as_mut_ptr()) };
    hash
}

pub(crate) fn double_sha256(parts: &[&[u8]]) -> [u8; 32] {
    let joined;
    let bytes = match parts {
        [only, rest @ ..] if rest.iter().all(|part| part.is_empty()) => *only,
        _ => {
            joined = parts.concat();
            &joined
        }
    };
    let mut hash = [0; 32];
    // SAFETY: the host writes 32 bytes, which the array has.
    unsafe { import::sha256d(bytes.as_ptr(), bytes.len(), hash.as_mut_ptr()) };
    hash
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = vec![0; 2 * bytes.len()];
    // SAFETY: the host writes two bytes for each of those, which the vector has.
    unsafe { import::hex(bytes.as_ptr(), bytes.len(), digits.as_mut_ptr()) };
    digits.into_iter().map(char::from).collect()
}
