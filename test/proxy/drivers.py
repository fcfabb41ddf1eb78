"""What psycopg2 and psycopg 3 do through a port of the proxy: argument 1 is the connection string. Ends with "good" or a traceback."""
import sys
import psycopg
import psycopg2
import psycopg2.extras

dsn = sys.argv[1]


def old():
    db = psycopg2.connect(dsn)
    cur = db.cursor()
    cur.execute("drop table if exists py2; create table py2 (n int primary key, t text, b bytea)")
    db.commit()
    cur.executemany("insert into py2 values (%s, %s, %s)", [(n, "x" * n, bytes([n % 256])) for n in range(100)])
    psycopg2.extras.execute_values(cur, "insert into py2 values %s", [(n, "y", b"z") for n in range(100, 1100)], page_size=200)
    db.commit()
    cur.execute("select count(*), sum(n) from py2")
    assert cur.fetchone() == (1100, 604450)
    db.rollback()
    named = db.cursor("named")
    named.itersize = 50
    named.execute("select n from py2 order by n")
    assert [row[0] for row in named] == list(range(1100))
    named.close()
    db.rollback()
    held = db.cursor("held", withhold=True)
    held.execute("select n from py2 order by n")
    db.commit()
    assert held.fetchmany(3) == [(0,), (1,), (2,)]
    held.close()
    db.commit()
    db.autocommit = True
    cur.execute("insert into py2 values (5000, 'own write', null)")
    cur.execute("select t from py2 where n = 5000")
    assert cur.fetchone() == ("own write",)
    cur.execute("listen news")
    cur.execute("notify news, 'hello'")
    db.poll()
    assert [note.payload for note in db.notifies] == ["hello"]
    cur.execute("unlisten *")
    try:
        cur.execute("select 1/0")
        raise AssertionError("no error came")
    except psycopg2.errors.DivisionByZero:
        pass
    cur.execute("select pg_advisory_lock(1), pg_advisory_unlock(1)")
    db.close()


def new():
    with psycopg.connect(dsn, autocommit=True) as db:
        db.prepare_threshold = 0
        db.execute("drop table if exists py3")
        db.execute("create table py3 (n int primary key, t text)")
        with db.cursor().copy("copy py3 from stdin") as copy:
            for n in range(10000):
                copy.write_row((n, f"row {n}"))
        got = b""
        with db.cursor().copy("copy (select * from py3 order by n) to stdout") as copy:
            for data in copy:
                got += data
        assert got == b"".join(b"%d\trow %d\n" % (n, n) for n in range(10000))
        for n in range(200):
            assert db.execute("select t from py3 where n = %s", (n,)).fetchone() == (f"row {n}",)
            db.execute("update py3 set t = %s where n = %s", (f"new {n}", n))
            assert db.execute("select t from py3 where n = %s", (n,)).fetchone() == (f"new {n}",)
        with db.pipeline() as pipeline:
            cursors = [db.execute("insert into py3 values (%s, 'piped')", (n,)) for n in range(20000, 20050)]
            reads = [db.execute("select %s::int + count(*) from py3 where n >= 20000", (n,)) for n in range(5)]
            pipeline.sync()
            assert [cur.fetchone()[0] for cur in reads] == [50, 51, 52, 53, 54]
        try:
            with db.pipeline():
                db.execute("select 1/0")
                db.execute("select 1")
            raise AssertionError("no error came")
        except psycopg.errors.DivisionByZero:
            pass
        binary = db.cursor(binary=True)
        assert binary.execute("select %s::numeric, %s::timestamptz is null", ("12.5", None)).fetchone()[1] is True
        with db.transaction():
            with db.cursor(name="server") as cur:
                cur.execute("select n from py3 order by n limit 1000")
                assert sum(1 for _ in cur) == 1000
            try:
                with db.transaction():
                    db.execute("delete from py3")
                    raise psycopg.Rollback
            except psycopg.Rollback:
                pass
        assert db.execute("select count(*) from py3").fetchone() == (10050,)
        with psycopg.connect(dsn, autocommit=True) as other:
            for n in range(20):
                assert other.execute("select %s::int", (n,)).fetchone() == (n,)
                # Nothing is under way: what comes next must not be what it hits.
                other.cancel()


old()
new()
print("good")
