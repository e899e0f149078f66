-- Whoever writes need not own what is written: `migrate --grant-write` lets roles in, and what only an owner may do is
-- done for them by functions with the owner's rights.

-- `migrate` lets these roles write tables that are made later as well.
create table debshrew.writer (
  pipeline_id integer not null,
  role_name text not null,
  constraint writer_pkey primary key (pipeline_id, role_name),
  constraint writer_pipeline_fkey foreign key (pipeline_id) references debshrew.pipeline on delete cascade
);
comment on table debshrew.writer is 'Roles that may write what a pipeline replicates, and roll it back.';

-- A rollback switches the user's triggers off and on again, which only a table's owner may do.
create function debshrew.switch_trigger(of_table oid, of_trigger text, how text) returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
  if how <> all (array['disable', 'enable', 'enable always', 'enable replica']) then
    raise exception 'a trigger cannot be switched like this: %', how;
  end if;
  -- A partition stands for the table that it is part of.
  if not exists (
    select from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      join debshrew.pipeline p on p.schema_name = n.nspname
      join debshrew.journal_column j on j.pipeline_id = p.pipeline_id and j.table_name = c.relname
     where c.oid = coalesce(pg_partition_root(of_table)::oid, of_table)
  ) then
    raise exception 'table % is not replicated', of_table::regclass;
  end if;
  execute format('alter table only %s %s trigger %I', of_table::regclass, how, of_trigger);
end
$$;
comment on function debshrew.switch_trigger is
  'Switches a trigger of a replicated table off or on, with the rights of whoever ran `migrate`.';
revoke all on function debshrew.switch_trigger from public;

-- Pruning needs the summaries of a journal's index, which only its owner may make.
create function debshrew.summarise(of_journal oid) returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform brin_summarize_new_values(i.indexrelid)
     from pg_index i
     join pg_class x on x.oid = i.indexrelid
     join pg_am a on a.oid = x.relam
     join pg_class c on c.oid = i.indrelid
     join pg_namespace n on n.oid = c.relnamespace
     join debshrew.pipeline p on n.nspname = 'debshrew_' || p.name
    where i.indrelid = of_journal and a.amname = 'brin';
end
$$;
comment on function debshrew.summarise is 'Brings the summaries of a journal''s index up to date, with its owner''s rights.';
revoke all on function debshrew.summarise from public;
