-- The ledger's tables. Names are not qualified: debshrew runs this in the pipeline's own schema. There are no
-- foreign keys, whose checks would cost more than the rows; the transform makes what refers and what is
-- referred to in one transaction.

create table blocks (
    height integer primary key,
    hash bytea not null,
    previous_hash bytea not null,
    merkle_root bytea not null,
    time timestamptz not null,
    version integer not null,
    bits bigint not null,
    nonce bigint not null,
    size integer not null,
    weight integer not null,
    transactions integer not null
);

comment on table blocks is 'A row per block. Hashes, here and everywhere, are in the order in which Bitcoin shows them.';
comment on column blocks.time is 'What the miner put into the header.';
comment on column blocks.bits is 'The target that the hash had to meet, in compact form.';
comment on column blocks.size is 'Bytes, witnesses included.';
comment on column blocks.weight is 'As of BIP 141: four for each byte, one for each of a witness.';
comment on column blocks.transactions is 'How many, the coinbase included.';

create table transactions (
    txid bytea primary key,
    height integer not null,
    position integer not null,
    version integer not null,
    lock_time bigint not null,
    size integer not null,
    weight integer not null,
    inputs integer not null,
    outputs integer not null,
    output_value numeric not null,
    fee numeric
);

-- The transactions of a block, in order.
create index transactions_height_position_idx on transactions (height, position);

comment on table transactions is 'A row per transaction. Of two with the same identifier (see BIP 30) the later counts.';
comment on column transactions.position is 'In its block; the coinbase has 0.';
comment on column transactions.output_value is 'Satoshi, of all outputs.';
comment on column transactions.fee is 'Satoshi; null for a coinbase, and when an input spends an output from before the first block that was processed.';

create table inputs (
    txid bytea not null,
    position integer not null,
    height integer not null,
    previous_txid bytea,
    previous_position bigint,
    sequence bigint not null,
    value bigint,
    primary key (txid, position)
);

comment on table inputs is 'A row per input of a transaction.';
comment on column inputs.txid is 'The transaction that it is an input of.';
comment on column inputs.previous_txid is 'With previous_position the output that it spends; null for a coinbase.';
comment on column inputs.value is 'Satoshi that it spends; null for a coinbase, and when the output is from before the first block that was processed.';

create table outputs (
    txid bytea not null,
    position integer not null,
    height integer not null,
    value bigint not null,
    script bytea not null,
    script_hash bytea not null,
    spent_by bytea,
    spent_height integer,
    primary key (txid, position),
    constraint outputs_spent_by_and_height_go_together check ((spent_by is null) = (spent_height is null))
);

-- What a script was ever paid.
create index outputs_script_hash_idx on outputs (script_hash);

comment on table outputs is 'A row per output of a transaction. Unspent is what has no spent_height.';
comment on column outputs.value is 'Satoshi.';
comment on column outputs.script is 'What must be satisfied to spend it; addresses are a way to write some of them.';
comment on column outputs.script_hash is 'SHA-256 of the script with its bytes reversed, as Electrum servers name scripts.';
comment on column outputs.spent_by is 'The transaction that spends it; null while it is unspent.';
comment on column outputs.spent_height is 'The block of that transaction; null while it is unspent.';

create table balances (
    script_hash bytea primary key,
    script bytea not null,
    balance numeric not null,
    constraint balances_balance_is_positive check (balance > 0)
);

comment on table balances is 'A row per script whose unspent outputs have a value. Keyed by the hash, as scripts can be longer than an index entry.';
comment on column balances.script_hash is 'As in outputs.';
comment on column balances.balance is 'Satoshi: the sum of the script''s unspent outputs.';
