-- The tables in which debshrew keeps what it must know to go on after a crash: its pipelines, how far each has
-- come, which blocks it committed, which reorganisations it saw. A pipeline's undo journals are kept apart, in
-- a schema of their own (`debshrew_NAME`), since their columns follow the replicated tables.

create table debshrew.pipeline (
  pipeline_id integer generated always as identity,
  name text not null,
  schema_name text not null,
  start_height integer not null,
  created_at timestamptz not null default now(),
  constraint pipeline_pkey primary key (pipeline_id),
  constraint pipeline_name_unique unique (name),
  -- Two pipelines in one schema would write each other's tables.
  constraint pipeline_schema_unique unique (schema_name),
  constraint pipeline_start_height_not_negative check (start_height >= 0)
);

-- Apart from `pipeline`, since this row is rewritten with every block: small and without indexes on what
-- changes, so that PostgreSQL can update it in place (a heap-only tuple).
create table debshrew.checkpoint (
  pipeline_id integer not null,
  height integer,
  hash bytea,
  journal_floor integer,
  epoch bigint not null default 0,
  constraint checkpoint_pkey primary key (pipeline_id),
  constraint checkpoint_pipeline_fkey foreign key (pipeline_id) references debshrew.pipeline on delete cascade,
  constraint checkpoint_height_not_negative check (height >= 0),
  constraint checkpoint_hash_is_32_bytes check (octet_length(hash) = 32),
  constraint checkpoint_height_and_hash_together check ((height is null) = (hash is null)),
  constraint checkpoint_floor_not_above_height check (journal_floor is null or journal_floor <= height)
) with (fillfactor = 50);

create table debshrew.block (
  pipeline_id integer not null,
  height integer not null,
  hash bytea not null,
  changes integer not null,
  journaled boolean not null,
  committed_at timestamptz not null default clock_timestamp(),
  constraint block_pkey primary key (pipeline_id, height),
  constraint block_pipeline_fkey foreign key (pipeline_id) references debshrew.pipeline on delete cascade,
  constraint block_hash_is_32_bytes check (octet_length(hash) = 32)
);

create table debshrew.reorg (
  reorg_id bigint generated always as identity,
  pipeline_id integer not null,
  happened_at timestamptz not null default clock_timestamp(),
  from_height integer not null,
  from_hash bytea not null,
  to_height integer,
  to_hash bytea,
  depth integer not null,
  rows_restored bigint not null,
  cause text not null,
  constraint reorg_pkey primary key (reorg_id),
  constraint reorg_pipeline_fkey foreign key (pipeline_id) references debshrew.pipeline on delete cascade,
  constraint reorg_cause_known check (cause in ('reorg', 'operator'))
);

create index reorg_pipeline_idx on debshrew.reorg (pipeline_id, reorg_id);

-- What each pipeline is doing, for people and for `debshrew status`. Nothing depends on it.
create table debshrew.activity (
  pipeline_id integer not null,
  state text not null,
  reason text,
  reason_height integer,
  since timestamptz not null default clock_timestamp(),
  source_height integer,
  source_seen_at timestamptz,
  constraint activity_pkey primary key (pipeline_id),
  constraint activity_pipeline_fkey foreign key (pipeline_id) references debshrew.pipeline on delete cascade,
  constraint activity_state_known check (state in ('new', 'running', 'waiting', 'halted', 'stopped'))
);

-- Which column of which table each journal column holds the former values of. Names alone do not tell a
-- renamed column from one dropped and another added; the catalog's numbers do.
create table debshrew.journal_column (
  pipeline_id integer not null,
  table_name text not null,
  table_oid oid not null,
  column_name text not null,
  attribute_number smallint not null,
  in_key boolean not null,
  constraint journal_column_pkey primary key (pipeline_id, table_name, column_name),
  constraint journal_column_pipeline_fkey foreign key (pipeline_id) references debshrew.pipeline on delete cascade
);

-- Moves a checkpoint from one block to the next, if it stands where the caller believes and the caller is
-- still the pipeline's writer; raises DS001 otherwise. It raises, rather than returning false, so that the
-- statements already sent behind it fail with it and the transaction cannot be committed.
create function debshrew.advance(
  of_pipeline integer,
  as_epoch bigint,
  from_height integer,
  from_hash bytea,
  to_height integer,
  to_hash bytea,
  with_changes integer,
  is_journaled boolean
) returns void
language plpgsql
set search_path = ''
as $$
begin
  update debshrew.checkpoint c
     set height = to_height,
         hash = to_hash,
         -- A block without a journal cannot be undone.
         journal_floor = case when is_journaled then c.journal_floor else to_height end
   where c.pipeline_id = of_pipeline
     and c.epoch = as_epoch
     and c.height is not distinct from from_height
     and c.hash is not distinct from from_hash;
  if not found then
    raise exception using
      errcode = 'DS001',
      message = 'the checkpoint is not where this writer left it, or another writer took over';
  end if;
  insert into debshrew.block (pipeline_id, height, hash, changes, journaled)
  values (of_pipeline, to_height, to_hash, with_changes, is_journaled);
end
$$;

comment on schema debshrew is 'Checkpoints, block log and reorganisations of debshrew''s pipelines.';
comment on table debshrew.pipeline is 'One row per pipeline: a transform, its schema, and where it starts.';
comment on table debshrew.checkpoint is 'The last committed block of each pipeline, and who may move it.';
comment on column debshrew.checkpoint.height is 'Height of the last committed block; null before the first.';
comment on column debshrew.checkpoint.journal_floor is
  'Lowest height that the journal can roll back to; null when it reaches back to before the first block.';
comment on column debshrew.checkpoint.epoch is
  'Counts the processes that became the writer; a transaction of an earlier one cannot commit.';
comment on table debshrew.block is 'One row per committed block of the branch that is followed.';
comment on column debshrew.block.hash is 'In the order in which the source gives it: the order that Bitcoin shows.';
comment on table debshrew.reorg is 'One row per rollback.';
comment on column debshrew.reorg.to_height is 'The fork point; null when everything was rolled back.';
comment on table debshrew.activity is 'What each pipeline''s process last said that it was doing.';
comment on table debshrew.journal_column is 'The catalog''s numbers of the columns that the journals follow.';
comment on function debshrew.advance is
  'Compare-and-set of a checkpoint; raises DS001 when it is not where the caller believes.';
