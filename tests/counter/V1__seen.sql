create table seen (height integer primary key, count integer not null, name text not null);
