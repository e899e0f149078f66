-- What keeps a block whole and a rollback exact: counts that the server checks before COMMIT, a checkpoint that one
-- transaction moves only once, and journals that hold the columns that a change sets.

-- Images may hold some of a table's columns: bit N of a journal's `undo_held` says that the column with slot N is held,
-- and null that all are. A slot is neither a column's name nor its number in the catalog, since renaming changes the one
-- and restoring from a dump the other.
alter table debshrew.journal_column add column slot smallint;
comment on column debshrew.journal_column.slot is
  'The column''s bit in `undo_held` of the table''s journal; null until `migrate` has run.';

-- The constraints that a table's rows had to meet when `migrate` ran last: images that are older than a constraint may
-- violate it.
create table debshrew.journal_table (
  pipeline_id integer not null,
  table_name text not null,
  constraints text[] not null,
  constraint journal_table_pkey primary key (pipeline_id, table_name),
  constraint journal_table_pipeline_fkey foreign key (pipeline_id) references debshrew.pipeline on delete cascade
);
comment on table debshrew.journal_table is 'What the rows of each replicated table had to meet when `migrate` ran last.';

create function debshrew.rows_missing(of_table text, expected bigint, written bigint) returns void
language plpgsql
set search_path = ''
as $$
begin
  raise exception using
    errcode = 'DS002',
    message = format('%s rows were written where %s should have been', written, expected),
    table = of_table;
end
$$;
comment on function debshrew.rows_missing is 'Raises DS002: a trigger has kept rows out.';

-- Volatile, so that it sees what was committed while the statement that asks waited for the table's lock.
create function debshrew.refuse_new_triggers(of_table oid, known oid[]) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  if exists (
    select from pg_trigger g
     where g.tgrelid in (select of_table union select p.relid from pg_partition_tree(of_table) p)
       and g.tgenabled <> 'D' and g.oid <> all (known)
  ) then
    raise exception using
      errcode = 'DS003',
      message = format('table %s has a trigger or a foreign key that it did not have', of_table::regclass);
  end if;
  return true;
end
$$;
comment on function debshrew.refuse_new_triggers is
  'Raises DS003: a trigger or a foreign key was made since the writer looked at the tables.';

-- Called when a statement is planned, and only then: it is declared immutable so that its call is replaced by its result. A
-- plan is made anew when its table gets a trigger, or a foreign key on either side, which is a trigger as well.
create function debshrew.has_only_triggers(of_table oid, known oid[]) returns boolean
language plpgsql
immutable
set search_path = ''
as $$
begin
  return debshrew.refuse_new_triggers(of_table, known);
end
$$;
comment on function debshrew.has_only_triggers is
  'What debshrew.refuse_new_triggers says, asked when a statement is planned.';

-- Now returns the floor that it left, and does not move what its own transaction has moved: two blocks can never be
-- committed together, whatever became of the COMMIT between them.
drop function debshrew.advance(integer, bigint, integer, bytea, integer, bytea, integer, boolean);
create function debshrew.advance(
  of_pipeline integer,
  as_epoch bigint,
  from_height integer,
  from_hash bytea,
  to_height integer,
  to_hash bytea,
  with_changes integer,
  is_journaled boolean
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
  insert into debshrew.block (pipeline_id, height, hash, changes, journaled)
  values (of_pipeline, to_height, to_hash, with_changes, is_journaled);
  return floor;
end
$$;
comment on function debshrew.advance is
  'Compare-and-set of a checkpoint, returns its journal_floor; raises DS001 when it is not where the caller believes.';
