-- Whose host has vanished, or who has stopped, still holds a lock. A process that holds one says every few seconds that it is
-- alive; who waits for the lock ends the session of one that does not. (The epoch fences it off should it come back.)
-- Apart from the rows that blocks and cursors lock, so that no heartbeat waits.

create table debshrew.heartbeat (
  pipeline_id integer not null,
  epoch bigint not null,
  session_pid integer not null,
  beat_at timestamptz not null,
  constraint heartbeat_pkey primary key (pipeline_id),
  constraint heartbeat_pipeline_fkey foreign key (pipeline_id) references debshrew.pipeline on delete cascade
) with (fillfactor = 50);

create table debshrew.sink_heartbeat (
  sink_id integer not null,
  epoch bigint not null,
  session_pid integer not null,
  beat_at timestamptz not null,
  constraint sink_heartbeat_pkey primary key (sink_id),
  constraint sink_heartbeat_sink_fkey foreign key (sink_id) references debshrew.sink on delete cascade
) with (fillfactor = 50);

comment on table debshrew.heartbeat is 'When the process that writes for a pipeline last said that it is alive.';
comment on column debshrew.heartbeat.epoch is 'Of the process, as in `checkpoint`.';
comment on column debshrew.heartbeat.session_pid is 'PostgreSQL''s process of the session that holds the pipeline''s lock.';
comment on table debshrew.sink_heartbeat is 'The same of the process that publishes to a sink; the epoch is that of its cursor.';
