-- Where changes go beside the tables: how far each sink's stream is, and what it needs to take back what it published.

create table debshrew.sink (
  sink_id integer generated always as identity,
  pipeline_id integer not null,
  name text not null,
  kind text not null,
  max_lag interval not null,
  on_lag text not null,
  confirmations integer not null default 0,
  stage text not null default 'new',
  holds_from integer,
  paused boolean not null default false,
  halted boolean not null default false,
  problem text,
  problem_since timestamptz,
  resync boolean not null default false,
  generation integer not null default 0,
  constraint sink_pkey primary key (sink_id),
  constraint sink_name_unique unique (pipeline_id, name),
  constraint sink_pipeline_fkey foreign key (pipeline_id) references debshrew.pipeline on delete cascade,
  constraint sink_stage_known check (stage in ('new', 'snapshot', 'streaming', 'lost')),
  constraint sink_on_lag_known check (on_lag in ('detach', 'block'))
);

-- Apart from `sink`, since this row is rewritten with every block.
create table debshrew.sink_cursor (
  sink_id integer not null,
  height integer,
  hash bytea,
  reorg_id bigint not null default 0,
  reserved integer,
  epoch bigint not null default 0,
  relay_pid integer,
  published boolean not null default false,
  events bigint not null default 0,
  moved_at timestamptz,
  constraint sink_cursor_pkey primary key (sink_id),
  constraint sink_cursor_sink_fkey foreign key (sink_id) references debshrew.sink on delete cascade,
  constraint sink_cursor_height_and_hash_together check ((height is null) = (hash is null))
) with (fillfactor = 50);

create table debshrew.retracted (
  pipeline_id integer not null,
  reorg_id bigint not null,
  height integer not null,
  part integer not null,
  hash bytea not null,
  events text not null,
  constraint retracted_pkey primary key (pipeline_id, reorg_id, height, part),
  constraint retracted_pipeline_fkey foreign key (pipeline_id) references debshrew.pipeline on delete cascade
);

comment on table debshrew.sink is 'One row per sink of a pipeline that a process has ever run.';
comment on column debshrew.sink.max_lag is 'A sink that is behind for longer is lost, or holds the pipeline up.';
comment on column debshrew.sink.confirmations is 'So many blocks below the checkpoint it stays on purpose.';
comment on column debshrew.sink.stage is
  '`new`: nothing is kept for it; `snapshot`: it is sent all rows as they were at its cursor; `streaming`; `lost`: it must begin again.';
comment on column debshrew.sink.holds_from is 'Blocks from this height on are journaled for it; null when none are.';
comment on column debshrew.sink.problem is 'Why it halted, was lost, or what it waits for.';
comment on column debshrew.sink.resync is 'It is to begin again with a snapshot, whatever is configured.';
comment on column debshrew.sink.generation is 'How often its stream began again.';
comment on table debshrew.sink_cursor is 'How far each sink''s stream is: the last block published, and the last rollback it took part in.';
comment on column debshrew.sink_cursor.height is 'Null before the first block.';
comment on column debshrew.sink_cursor.reserved is
  'Blocks up to this height may have been published, so that a rollback keeps their events.';
comment on column debshrew.sink_cursor.epoch is 'Counts the processes that moved the cursor; an earlier one cannot any more.';
comment on column debshrew.sink_cursor.published is 'Whether a step was published since the stream began.';
comment on column debshrew.sink_cursor.relay_pid is 'The PostgreSQL process of the session that moves the cursor, or did last.';
comment on table debshrew.retracted is
  'The events of blocks that were rolled back and that a sink may have published, a JSON array a line, until all sinks have taken them back.';

-- Now refuses a block without a journal that a sink needs: it raises DS004.
create or replace function debshrew.advance(
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
  -- Behind the checkpoint's lock, which a sink takes when it begins: it is seen, or begins above this block.
  if not is_journaled and exists (
    select from debshrew.sink s where s.pipeline_id = of_pipeline and s.holds_from <= to_height
  ) then
    raise exception using
      errcode = 'DS004',
      message = 'a sink needs the journal of this block';
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
  'Compare-and-set of a checkpoint, returns its journal_floor; raises DS001 when it is not where the caller believes, DS004 when a sink needs a journal. Tells of the block if a name is given.';
