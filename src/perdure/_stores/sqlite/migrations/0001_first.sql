-- The first schema. Tables carry a prefix because transactional activities put the application's
-- own tables into the same file. What is looked at often stands before what may be long: SQLite
-- reads a row from its beginning and leaves the overflow pages of a long payload alone.

CREATE TABLE perdure_meta(
  version INTEGER PRIMARY KEY,   -- of the schema
  applied_at INTEGER NOT NULL
) STRICT;

-- A rowid table: rows lie in the order of their birth, so those that change together lie together,
-- and only the narrow index of the random ids is touched at random.
CREATE TABLE perdure_executions(
  n INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  incarnation BLOB NOT NULL,
  fence INTEGER NOT NULL,
  owner INTEGER,                 -- perdure_workers.n; not null if and only if RUNNING
  wakes INTEGER NOT NULL DEFAULT 0,
  -- How many wait for its end, or have waited: the letters 'waiter' in its mailbox. Nobody, as nearly always: then
  -- a commit that ends or holds it has nobody to tell, and need not look.
  waiters INTEGER NOT NULL DEFAULT 0,
  status TEXT NOT NULL CHECK (status IN ('PENDING', 'RUNNING', 'SUSPENDED', 'HELD', 'SUCCEEDED', 'FAILED', 'INTERRUPTED')),
  held TEXT CHECK ((held IS NOT NULL) = (status = 'HELD')),
  -- When somebody must look at the row. Null only when PENDING or final, so that one partial index
  -- finds due timers (no owner), mail for a worker and all that a worker owns (by owner).
  -- RUNNING: never, or since when there has been mail. SUSPENDED: the timer, or never. HELD: never.
  wake_at INTEGER CHECK ((wake_at IS NULL) = (status NOT IN ('RUNNING', 'SUSPENDED', 'HELD'))),
  ready_at INTEGER CHECK ((ready_at IS NOT NULL) = (status = 'PENDING')),
  number INTEGER NOT NULL,
  workflow TEXT NOT NULL,
  key TEXT,
  priority INTEGER NOT NULL,
  crashes INTEGER NOT NULL DEFAULT 0,
  version TEXT,
  parent BLOB,
  created_at INTEGER NOT NULL,
  began_at INTEGER,
  begun INTEGER NOT NULL AS (began_at IS NOT NULL) VIRTUAL,
  finished_at INTEGER CHECK ((finished_at IS NOT NULL) = (status IN ('SUCCEEDED', 'FAILED', 'INTERRUPTED'))),
  changed_at INTEGER NOT NULL,
  deadline INTEGER,
  -- The deadline, as long as it has to be seen to: null when it was delivered, or the execution has ended.
  expires_at INTEGER CHECK (expires_at IS NULL OR status NOT IN ('SUCCEEDED', 'FAILED', 'INTERRUPTED')),
  seed BLOB,                     -- null: its incarnation
  attributes TEXT NOT NULL,      -- a JSON object
  waits BLOB,
  payload BLOB NOT NULL,
  exit BLOB,
  CHECK ((owner IS NOT NULL) = (status = 'RUNNING'))
) STRICT;

CREATE INDEX perdure_executions_ready ON perdure_executions(workflow, begun, priority DESC, ready_at)
  WHERE status = 'PENDING';
CREATE INDEX perdure_executions_wake ON perdure_executions(owner, wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX perdure_executions_list ON perdure_executions(workflow, created_at, id);
-- Without the two statuses of an execution that is born, runs and succeeds: it is never in this index, and pays
-- nothing for it. What somebody looks for among a million that have succeeded is.
CREATE INDEX perdure_executions_status ON perdure_executions(workflow, status, created_at, id)
  WHERE status NOT IN ('RUNNING', 'SUCCEEDED');
CREATE INDEX perdure_executions_expires ON perdure_executions(expires_at) WHERE expires_at IS NOT NULL;
-- What has ended so long ago that it may be purged.
CREATE INDEX perdure_executions_finished ON perdure_executions(workflow, finished_at) WHERE finished_at IS NOT NULL;

-- Columns in the order of `Entry`. Incarnations begin with their time: inserts stay close together.
CREATE TABLE perdure_journal(
  incarnation BLOB NOT NULL,
  seq INTEGER NOT NULL,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  occurrence INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  input BLOB NOT NULL,
  exit BLOB NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (incarnation, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE perdure_mailbox(
  incarnation BLOB NOT NULL,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  wake INTEGER NOT NULL,         -- from 1; 0: the store's own letters, of which no kernel hears
  exit BLOB NOT NULL,
  at INTEGER NOT NULL,
  sender BLOB NOT NULL,          -- empty: its sender does not ask whether it was he
  PRIMARY KEY (incarnation, kind, name)
) STRICT, WITHOUT ROWID;

-- What has come since: a channel may have had a hundred thousand messages before.
CREATE INDEX perdure_mailbox_wake ON perdure_mailbox(incarnation, wake) WHERE wake > 0;

-- The earlier lives of an execution. Their journals and mailboxes stay under their incarnations.
CREATE TABLE perdure_lives(
  execution_id BLOB NOT NULL,
  number INTEGER NOT NULL,
  incarnation BLOB NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('HELD', 'SUCCEEDED', 'FAILED', 'INTERRUPTED')),
  payload BLOB NOT NULL,
  exit BLOB,
  created_at INTEGER NOT NULL,
  finished_at INTEGER CHECK ((finished_at IS NULL) = (status = 'HELD')),
  aside_at INTEGER NOT NULL,     -- when the next one began
  PRIMARY KEY (execution_id, number)
) STRICT, WITHOUT ROWID;

-- What was put aside so long ago that it may be purged: an endless loop puts lives aside, and never ends.
CREATE INDEX perdure_lives_aside ON perdure_lives(aside_at);

CREATE TABLE perdure_published(
  incarnation BLOB NOT NULL,
  name TEXT NOT NULL,
  value BLOB NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (incarnation, name)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: the number of a forgotten worker is never given to another one.
CREATE TABLE perdure_workers(
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  workflows TEXT NOT NULL,       -- a JSON array
  started_at INTEGER NOT NULL,
  retired_at INTEGER
) STRICT;

-- Looked at every second, by every worker; the retired ones become many.
CREATE INDEX perdure_workers_alive ON perdure_workers(id) WHERE retired_at IS NULL;

CREATE TABLE perdure_heartbeats(
  incarnation BLOB NOT NULL,
  name TEXT NOT NULL,
  occurrence INTEGER NOT NULL,
  at INTEGER NOT NULL,
  details BLOB NOT NULL,
  PRIMARY KEY (incarnation, name, occurrence)
) STRICT, WITHOUT ROWID;
