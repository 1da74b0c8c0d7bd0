-- The roles of a cluster; databases of one server share them. LOGIN without a password: `kalshi-data migrate --roles`, or
-- whoever runs the server, gives one. kd_owner owns every table. kd_writer and kd_archiver are its members without inheriting: they make and drop
-- partitions after SET ROLE, and may otherwise do only what the grants say.

DO $$
DECLARE
    name text;
    may_become text;
BEGIN
    FOREACH name IN ARRAY ARRAY['kd_owner', 'kd_writer', 'kd_reader', 'kd_planner', 'kd_archiver', 'kd_status'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = name);
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT', name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- another database's migration was faster
        END;
    END LOOP;
    -- From version 16 on, whoever makes a role without being a superuser (RDS's master user) is its member, but may not
    -- become it.
    may_become := CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END;
    FOREACH name IN ARRAY ARRAY['kd_writer', 'kd_archiver', current_user::text] LOOP
        CONTINUE WHEN pg_has_role(name, 'kd_owner', may_become);
        EXECUTE format('GRANT kd_owner TO %I', name);
    END LOOP;
END
$$;

GRANT USAGE, CREATE ON SCHEMA public TO kd_owner;

-- Alembic has just made it as whoever we are; the next migration may run as kd_owner itself.
ALTER TABLE alembic_version OWNER TO kd_owner;
