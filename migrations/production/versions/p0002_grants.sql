-- Who may do what in production, level 2.

GRANT SELECT ON merge_lags, lag_by_minute, completeness, listen_runs, listen_runs_progress
    TO kd_writer, kd_reader, kd_archiver, kd_status;
GRANT INSERT, UPDATE, DELETE ON merge_lags, completeness, listen_runs, listen_runs_progress TO kd_writer;
GRANT INSERT ON listen_runs TO kd_archiver;

UPDATE schema_level SET level = 2;
