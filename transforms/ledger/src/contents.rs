//! What is in a block, in flat lists: an allocation for each transaction would be felt.

use std::ops::{ControlFlow, Range};

use bitcoin_slices::{bsl, Visit, Visitor};
use debshrew_sdk::double_sha256;

/// A transaction's identifier in the order in which it is hashed and serialised, the reverse of what is shown.
pub(crate) type Txid = [u8; 32];

#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) header: Header,
    pub(crate) size: usize,
    /// Source: BIP 141, "Block size".
    pub(crate) weight: u64,
    pub(crate) transactions: Vec<Transaction>,
    /// Of all transactions.
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<Output>,
    scripts: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Header {
    pub(crate) hash: [u8; 32],
    pub(crate) previous_hash: [u8; 32],
    pub(crate) merkle_root: [u8; 32],
    pub(crate) version: i32,
    pub(crate) time: u32,
    pub(crate) bits: u32,
    pub(crate) nonce: u32,
}

#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) txid: Txid,
    pub(crate) version: i32,
    pub(crate) lock_time: u32,
    pub(crate) size: usize,
    pub(crate) weight: u64,
    pub(crate) inputs: Range<usize>,
    pub(crate) outputs: Range<usize>,
}

#[derive(Debug)]
pub(crate) struct Input {
    /// `None` for a coinbase's input, which spends nothing.
    pub(crate) previous: Option<Outpoint>,
    pub(crate) sequence: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outpoint {
    pub(crate) txid: Txid,
    pub(crate) position: u32,
}

#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) value: u64,
    script: Range<usize>,
}

impl Contents {
    /// Reads a block as Bitcoin serialises it, and nothing behind it.
    pub(crate) fn read(bytes: &[u8]) -> Result<Contents, String> {
        let mut contents = Contents::default();
        let parsed = bsl::Block::visit(bytes, &mut contents)
            .map_err(|error| format!("{} bytes that do not parse ({error:?})", bytes.len()))?;
        if !parsed.remaining().is_empty() {
            let rest = parsed.remaining().len();
            return Err(format!("{} bytes, of which the last {rest} are behind the block", bytes.len()));
        }
        contents.size = parsed.consumed();
        let of_transactions: usize = contents.transactions.iter().map(|transaction| transaction.size).sum();
        let beside = (contents.size - of_transactions) as u64;
        contents.weight = 4 * beside + contents.transactions.iter().map(|tx| tx.weight).sum::<u64>();
        Ok(contents)
    }

    pub(crate) fn script(&self, output: &Output) -> &[u8] {
        &self.scripts[output.script.clone()]
    }
}

/// A slice that the parser cut to this length.
fn array(slice: &[u8]) -> [u8; 32] {
    let mut array = [0; 32];
    array.copy_from_slice(slice);
    array
}

/// The header's target in compact form, which the parser keeps to itself.
fn bits(header: &[u8]) -> u32 {
    let mut bits = [0; 4];
    bits.copy_from_slice(&header[72..76]);
    u32::from_le_bytes(bits)
}

/// Inputs and outputs come before the transaction that they belong to.
impl Visitor for Contents {
    fn visit_block_header(&mut self, header: &bsl::BlockHeader<'_>) -> ControlFlow<()> {
        self.header = Header {
            hash: double_sha256(&[header.block_hash_preimage()]),
            previous_hash: array(header.prev_blockhash()),
            merkle_root: array(header.merkle_root()),
            version: header.version(),
            time: header.time(),
            bits: bits(header.block_hash_preimage()),
            nonce: header.nonce(),
        };
        ControlFlow::Continue(())
    }

    fn visit_tx_in(&mut self, _position: usize, input: &bsl::TxIn<'_>) -> ControlFlow<()> {
        let previous = Outpoint { txid: array(input.prevout().txid()), position: input.prevout().vout() };
        let spends_nothing = previous.position == u32::MAX && previous.txid == [0; 32];
        let previous = (!spends_nothing).then_some(previous);
        self.inputs.push(Input { previous, sequence: input.sequence() });
        ControlFlow::Continue(())
    }

    fn visit_tx_out(&mut self, _position: usize, output: &bsl::TxOut<'_>) -> ControlFlow<()> {
        let start = self.scripts.len();
        self.scripts.extend_from_slice(output.script_pubkey());
        self.outputs.push(Output { value: output.value(), script: start..self.scripts.len() });
        ControlFlow::Continue(())
    }

    fn visit_transaction(&mut self, transaction: &bsl::Transaction<'_>) -> ControlFlow<()> {
        let (first_input, first_output) =
            self.transactions.last().map_or((0, 0), |last| (last.inputs.end, last.outputs.end));
        let (version, inputs_and_outputs, lock_time) = transaction.txid_preimage();
        self.transactions.push(Transaction {
            txid: double_sha256(&[version, inputs_and_outputs, lock_time]),
            version: transaction.version(),
            lock_time: transaction.locktime(),
            size: transaction.as_ref().len(),
            weight: transaction.weight(),
            inputs: first_input..self.inputs.len(),
            outputs: first_output..self.outputs.len(),
        });
        ControlFlow::Continue(())
    }
}
