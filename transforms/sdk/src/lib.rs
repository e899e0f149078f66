//! For authors of [debshrew](https://github.com/debshrew/debshrew) transforms: a block comes in, its views and
//! the transform's state can be asked for, and rows of PostgreSQL tables go out.
//!
//! Modules speak version 2 of the binary interface; without the crate's default feature `v2` they speak version 1,
//! which is slower.
//!
//! ```
//! use debshrew_sdk::{row, Block, Error, Transform};
//!
//! row! {
//!     /// A row of table `sizes`.
//!     pub struct Size in "sizes" {
//!         key { height: u32 }
//!         bytes: u64,
//!     }
//! }
//!
//! struct Sizes;
//!
//! impl Transform for Sizes {
//!     const NAME: &'static str = "sizes";
//!
//!     fn process_block(block: &mut Block) -> Result<(), Error> {
//!         let bytes = block.view("getblock", b"")?.len() as u64;
//!         block.upsert(&Size { height: block.height(), bytes });
//!         Ok(())
//!     }
//! }
//!
//! debshrew_sdk::export!(Sizes);
//! ```
//!
//! Each block runs in a fresh instance: nothing in memory survives, only the [state](Block::set_state) does.
//! The result must depend on the block, the views' answers and the state alone.

#[cfg(not(feature = "v2"))]
#[path = "v1/mod.rs"]
mod abi;
#[cfg(feature = "v2")]
#[path = "v2/mod.rs"]
mod abi;
mod block;
mod column;
mod hash;
mod row;

#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
#[cfg(target_arch = "wasm32")]
mod wasm;

pub use abi::{RowWriter, Writer};
pub use block::Block;
pub use column::{Bytes, Column, Hash, Json, Rendered, Timestamp};
pub use hash::{double_sha256, hex, sha256};
pub use row::{Row, Shape};

/// Why a block cannot be processed. `?` makes one of any error, and so does `into()` of a text.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What debshrew runs once for every block.
pub trait Transform {
    /// What the emitted changes say of their source.
    const NAME: &'static str;

    /// Emits the block's changes into `block`. After an error, whose text debshrew shows, the pipeline halts at
    /// this block and nothing of it is applied.
    fn process_block(block: &mut Block) -> Result<(), Error>;
}

/// Makes a [`Transform`] the one that this module exports.
#[macro_export]
macro_rules! export {
    ($transform:ty) => {
        // The name is unsafe to claim, as two of one name would clash; a module has one transform.
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        pub extern "C" fn process_block() -> i32 {
            $crate::run::<$transform>()
        }

        $crate::export_version!();
    };
}

/// Says by its name which version of the interface the module was built for.
#[cfg(feature = "v2")]
#[doc(hidden)]
#[macro_export]
macro_rules! export_version {
    () => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        pub extern "C" fn debshrew_abi_version_2() {}
    };
}

/// Version 1 has no such export.
#[cfg(not(feature = "v2"))]
#[doc(hidden)]
#[macro_export]
macro_rules! export_version {
    () => {};
}

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub use wasm::run;

#[cfg(target_arch = "wasm32")]
use abi::wasm::Host;

#[cfg(not(target_arch = "wasm32"))]
use testing::Host;

/// The manual's tutorial, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/transforms.md")]
struct Manual;
