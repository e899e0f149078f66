-- Whose session writes a pipeline, and which roles may read it.

-- Advisory locks have no owner: anybody who may connect can hold a pipeline's. Only the session that is named here counts as
-- its writer.
alter table debshrew.activity add column writer_pid integer;
comment on column debshrew.activity.writer_pid is
  'PostgreSQL''s process of the session that became the writer last; it is the writer while it holds the pipeline''s lock.';

-- `migrate` lets these roles read tables that are made later as well.
create table debshrew.reader (
  pipeline_id integer not null,
  role_name text not null,
  constraint reader_pkey primary key (pipeline_id, role_name),
  constraint reader_pipeline_fkey foreign key (pipeline_id) references debshrew.pipeline on delete cascade
);
comment on table debshrew.reader is 'Roles that may read what a pipeline replicates.';
