-- What is wrong now: a row for each pipeline and alert. `debshrew migrate` does not install this; run it as it is
-- (`psql -X -f sql/alerts.sql`), or give single queries to what asks for you. They need no more than what
-- `debshrew migrate --grant-read` grants. docs/operations.md says of each alert what to do. The numbers are yours to change.

-- halted: it does not go on by itself.
select 'halted' as alert, p.pipeline, pg_catalog.format('at %s: %s', coalesce(p.last_error_height, p.height), p.last_error) as detail
  from debshrew.pipelines p
 where p.state = 'halted';

-- stopped: no process writes it. One that stands by counts, once it has taken over.
select 'stopped' as alert, p.pipeline, pg_catalog.format('nothing has written it since block %s', p.height) as detail
  from debshrew.pipelines p
 where p.state in ('stopped', 'new');

-- no_heartbeat: its process is there, and has not looked at the source for two minutes or more.
select 'no_heartbeat' as alert, p.pipeline,
       pg_catalog.format('%s s since it looked at the source', pg_catalog.round(p.source_age_seconds)) as detail
  from debshrew.pipelines p
 where p.state = 'running' and p.source_age_seconds > 120;

-- waiting: for more than a minute, for the source, the database or another process.
select 'waiting' as alert, p.pipeline,
       pg_catalog.format('for %s s: %s', pg_catalog.round(p.state_age_seconds), p.last_error) as detail
  from debshrew.pipelines p
 where p.state = 'waiting' and p.state_age_seconds > 60;

-- lag: far behind the source's tip, and not catching up within the hour. Where a pipeline has `confirmations`, they are to be
-- taken from lag_blocks in both places: the database does not know them.
select 'lag' as alert, p.pipeline,
       pg_catalog.format('%s blocks behind, %s blocks a second', p.lag_blocks, pg_catalog.round(p.blocks_per_second::numeric, 2)) as detail
  from debshrew.pipelines p
 where p.lag_blocks > 6 and p.lag_blocks > p.blocks_per_second * 3600;

-- journal: what it takes to roll blocks back is larger than 10 GB, and than half of what it is for.
select 'journal' as alert, s.pipeline,
       pg_catalog.format('%s of journals for %s of tables', pg_catalog.pg_size_pretty(sum(s.journal_bytes)),
                         pg_catalog.pg_size_pretty(sum(s.table_bytes))) as detail
  from debshrew.table_sizes s
 group by s.pipeline
having sum(s.journal_bytes) > 10::int8 * 1024 * 1024 * 1024 and sum(s.journal_bytes) > sum(s.table_bytes) / 2;

-- deep_reorg: more than 5 blocks were rolled back at once within the last day.
select 'deep_reorg' as alert, r.pipeline,
       pg_catalog.format('%s blocks, from %s to %s, at %s', r.depth, r.from_height, r.fork_height, r.happened_at) as detail
  from debshrew.reorgs r
 where r.cause = 'reorg' and r.depth > 5 and r.happened_at > pg_catalog.statement_timestamp() - interval '1 day';
