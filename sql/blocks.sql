-- The blocks of the branch that is followed, as they were committed.
create or replace view debshrew.blocks as
select p.name as pipeline,
       b.height,
       pg_catalog.encode(b.hash, 'hex') as block_hash,
       b.changes,
       b.journaled,
       b.committed_at,
       pg_catalog.encode(b.state_root, 'hex') as state_root
  from debshrew.block b
  join debshrew.pipeline p on p.pipeline_id = b.pipeline_id;

comment on view debshrew.blocks is 'Committed blocks of the branch that is followed.';
comment on column debshrew.blocks.pipeline is 'The pipeline that committed it.';
comment on column debshrew.blocks.height is 'Its height; each is there once, of the branch that is followed.';
comment on column debshrew.blocks.block_hash is 'In the order that Bitcoin shows.';
comment on column debshrew.blocks.changes is 'How many rows the block changed.';
comment on column debshrew.blocks.journaled is 'Whether the block was committed with what it takes to roll it back.';
comment on column debshrew.blocks.committed_at is 'When it was committed; by the database''s clock, just before.';
comment on column debshrew.blocks.state_root is
  'Of the source, as of the block; null where the source keeps none, and for blocks that were committed before it was recorded.';
