/**
 * The startup process of a delayed standby waits with a record that it has already. Asked only where a delay is set.
 * *Source:* PostgreSQL manual, table of wait events of type Timeout; src/backend/access/transam/xlogrecovery.c, recoveryApplyDelay.
 */
export const WAITS_FOR_DELAY = `CASE WHEN current_setting('recovery_min_apply_delay') = '0' OR NOT pg_is_in_recovery() THEN false
    ELSE EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event = 'RecoveryApplyDelay') END`;
