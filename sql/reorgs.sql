-- Every rollback, the newest last.
create or replace view debshrew.reorgs as
select p.name as pipeline,
       r.happened_at,
       r.cause,
       r.depth,
       r.from_height,
       pg_catalog.encode(r.from_hash, 'hex') as from_hash,
       r.to_height as fork_height,
       pg_catalog.encode(r.to_hash, 'hex') as fork_hash,
       r.rows_restored
  from debshrew.reorg r
  join debshrew.pipeline p on p.pipeline_id = r.pipeline_id
 order by r.reorg_id;

comment on view debshrew.reorgs is 'Rollbacks: of reorganisations that were seen, and those that an operator asked for.';
comment on column debshrew.reorgs.pipeline is 'The pipeline that was rolled back.';
comment on column debshrew.reorgs.happened_at is 'When it was committed; by the database''s clock, just before.';
comment on column debshrew.reorgs.cause is 'reorg: the source changed to another branch; operator: `debshrew rollback`.';
comment on column debshrew.reorgs.depth is 'How many blocks were undone.';
comment on column debshrew.reorgs.from_height is 'The last block before it, which was undone with those below it.';
comment on column debshrew.reorgs.from_hash is 'That block''s hash, in the order that Bitcoin shows.';
comment on column debshrew.reorgs.fork_height is 'The checkpoint afterwards; null when everything was undone.';
comment on column debshrew.reorgs.fork_hash is 'The checkpoint''s hash afterwards, in the order that Bitcoin shows; null when everything was undone.';
comment on column debshrew.reorgs.rows_restored is 'Rows put back or removed, the transform''s state included.';
