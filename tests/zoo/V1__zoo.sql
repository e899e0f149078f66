-- Tables of many shapes and types, for tests of what a block may change and a rollback must restore.

create type mood as enum ('sad', 'ok', 'happy');
create type pair as (a integer, b text);
create domain percent as numeric(5, 2) check (value >= 0 and value <= 100);

create table kinds (
  key text primary key,
  small smallint,
  medium integer not null default 7,
  large bigint,
  exact numeric,
  scaled numeric(10, 2),
  single real,
  double double precision,
  yes boolean,
  short varchar(8),
  padded char(4),
  bytes bytea,
  day date,
  clock time,
  clock_zone timetz,
  moment timestamp,
  instant timestamptz,
  span interval,
  id uuid,
  document json,
  binary_document jsonb,
  address inet,
  network cidr,
  numbers integer[],
  words text[],
  documents jsonb[],
  feeling mood,
  share percent,
  both_of pair,
  range int4range,
  ranges int4multirange,
  place point,
  bits bit(4),
  more_bits varbit,
  search tsvector,
  twice bigint generated always as (large * 2) stored
);

create table "Mixed Case" (
  a integer,
  "B c" text,
  "Value" text,
  number integer not null,
  primary key ("B c", a)
);

create table equal_not_identical (amount numeric primary key, note text);

create table unique_values (id integer primary key, name text unique, note text default 'none');

create table parents (id integer primary key, note text);
create table children (id integer primary key, parent integer not null references parents, note text);

create table parts (id integer primary key, note text) partition by range (id);
create table parts_low partition of parts for values from (minvalue) to (5);
create table parts_high partition of parts for values from (5) to (maxvalue);

create table keys_alone (a text, b bytea, primary key (a, b));
