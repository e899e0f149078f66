-- Whoever listens is told of blocks and rollbacks, by the transactions that make them.

-- What is said is of the transaction that says it: PostgreSQL hands it on when that is committed, and not before.
create function debshrew.tell(as_pipeline text, what text, at_height integer, at_hash bytea) returns void
language plpgsql
set search_path = ''
as $$
begin
  -- Without a name, nobody is to be told.
  if as_pipeline is not null then
    perform pg_catalog.pg_notify('debshrew', pg_catalog.json_build_object(
      'pipeline', as_pipeline,
      'kind', what,
      'height', at_height,
      'hash', pg_catalog.encode(at_hash, 'hex')
    )::pg_catalog.text);
  end if;
end
$$;
comment on function debshrew.tell is
  'NOTIFY debshrew, with the pipeline, `commit` or `rollback`, and the checkpoint that it leaves, as JSON; nothing without a name.';

-- Now tells of the block, if it is given the name under which.
drop function debshrew.advance(integer, bigint, integer, bytea, integer, bytea, integer, boolean, bytea);
create function debshrew.advance(
  of_pipeline integer,
  as_epoch bigint,
  from_height integer,
  from_hash bytea,
  to_height integer,
  to_hash bytea,
  with_changes integer,
  is_journaled boolean,
  with_state_root bytea,
  told_as text
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
  if told_as is not null then
    perform debshrew.tell(told_as, 'commit', to_height, to_hash);
  end if;
  return floor;
end
$$;
comment on function debshrew.advance is
  'Compare-and-set of a checkpoint, returns its journal_floor; raises DS001 when it is not where the caller believes. Tells of the block if a name is given.';
