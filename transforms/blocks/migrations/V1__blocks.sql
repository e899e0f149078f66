-- Names are not qualified: debshrew runs this in the pipeline's own schema.

create table blocks (
    height integer primary key,
    hash bytea not null,
    previous_hash bytea not null,
    time timestamptz not null,
    transactions integer not null,
    size integer not null
);

comment on table blocks is 'A row per block of the chain that the source follows.';
comment on column blocks.hash is 'The hash of the header, in the order in which Bitcoin shows it.';
comment on column blocks.previous_hash is 'The hash of the block before.';
comment on column blocks.time is 'What the miner put into the header.';
comment on column blocks.transactions is 'How many, the coinbase included.';
comment on column blocks.size is 'Bytes, witnesses included.';
