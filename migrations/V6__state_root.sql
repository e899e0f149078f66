-- What the source said of its own state at each block, so that another program behind the same hashes is found out.

alter table debshrew.block
  add column state_root bytea,
  add constraint block_state_root_is_32_bytes check (octet_length(state_root) = 32);
comment on column debshrew.block.state_root is
  'The source''s state root at the block; null where the source keeps none, and for blocks that are older than this column.';

-- Now notes the state root with the block.
drop function debshrew.advance(integer, bigint, integer, bytea, integer, bytea, integer, boolean);
create function debshrew.advance(
  of_pipeline integer,
  as_epoch bigint,
  from_height integer,
  from_hash bytea,
  to_height integer,
  to_hash bytea,
  with_changes integer,
  is_journaled boolean,
  with_state_root bytea
) returns integer
language plpgsql
set search_path = ''
as $$
declare
  floor integer;
begin
  update debshrew.checkpoint c
     set height = to_height,
         hash = to_hash,
         -- A block without a journal cannot be undone.
         journal_floor = case when is_journaled then c.journal_floor else to_height end
   where c.pipeline_id = of_pipeline
     and c.epoch = as_epoch
     and c.height is not distinct from from_height
     and c.hash is not distinct from from_hash
     and c.xmin <> pg_current_xact_id()::xid
  returning c.journal_floor into floor;
  if not found then
    raise exception using
      errcode = 'DS001',
      message = 'the checkpoint is not where this writer left it, or another writer took over';
  end if;
  insert into debshrew.block (pipeline_id, height, hash, changes, journaled, state_root)
  values (of_pipeline, to_height, to_hash, with_changes, is_journaled, with_state_root);
  return floor;
end
$$;
comment on function debshrew.advance is
  'Compare-and-set of a checkpoint, returns its journal_floor; raises DS001 when it is not where the caller believes.';
