-- What a rollback gathers a row's former columns with: of each, at most one image counts.

create function debshrew.earlier_value(earlier anyelement, later anyelement) returns anyelement
language sql
immutable
strict
parallel safe
as 'select earlier';
comment on function debshrew.earlier_value is 'The first of two values.';

create aggregate debshrew.only_value(anyelement) (sfunc = debshrew.earlier_value, stype = anyelement, parallel = safe);
comment on aggregate debshrew.only_value(anyelement) is
  'The value, of whatever type, that is the only one; null if that is null or there is none. Copies it as it is stored.';
