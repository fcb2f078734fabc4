WITH rel AS (
  SELECT c.oid, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = 'public' AND c.relkind IN ('r','p','S','v','m')
), col AS (
  SELECT a.attrelid, a.attnum, jsonb_strip_nulls(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
      'nullable', NOT a.attnotnull, 'default', pg_get_expr(d.adbin, d.adrelid),
      'identity', nullif(a.attidentity::text, ''), 'generated', nullif(a.attgenerated::text, ''),
      'sequence', pg_get_serial_sequence('public.' || quote_ident(r.relname), a.attname),
      'collation', (SELECT collname FROM pg_collation k WHERE k.oid = a.attcollation AND k.collname <> 'default'))) AS j
  FROM rel r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE r.relkind IN ('r','p')
), idx AS (
  SELECT i.indrelid, ic.relname AS name, i.indisprimary, jsonb_strip_nulls(jsonb_build_object('name', ic.relname, 'method', am.amname,
      'unique', i.indisunique, 'nulls_not_distinct', nullif(i.indnullsnotdistinct, false),
      'constraint', (SELECT k.contype FROM pg_constraint k WHERE k.conindid = ic.oid AND k.conrelid = i.indrelid AND k.contype IN ('p','u','x')),
      'columns', (SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('expr', pg_get_indexdef(ic.oid, o.n::int, true),
            'opclass', CASE WHEN o.n <= i.indnkeyatts THEN oc.opcname END,
            'order', CASE WHEN am.amname <> 'btree' OR o.n > i.indnkeyatts THEN NULL WHEN (i.indoption[o.n-1] & 1) = 1 THEN 'desc' ELSE 'asc' END,
            'nulls', CASE WHEN am.amname = 'btree' AND (i.indoption[o.n-1] & 1) <> ((i.indoption[o.n-1] & 2) >> 1) THEN CASE WHEN (i.indoption[o.n-1] & 2) = 2 THEN 'first' ELSE 'last' END END,
            'include', CASE WHEN o.n > i.indnkeyatts THEN true END)) ORDER BY o.n)
          FROM generate_series(1, i.indnatts) AS o(n) LEFT JOIN pg_opclass oc ON o.n <= i.indnkeyatts AND oc.oid = i.indclass[o.n-1]),
      'predicate', pg_get_expr(i.indpred, i.indrelid, true), 'options', to_jsonb(ic.reloptions))) AS j
  FROM pg_index i JOIN rel r ON r.oid = i.indrelid JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_am am ON am.oid = ic.relam
), con AS (
  SELECT k.conrelid, k.contype, k.conname, CASE WHEN k.contype = 'f' THEN jsonb_build_object('name', k.conname,
      'columns', (SELECT jsonb_agg(a.attname ORDER BY u.o) FROM unnest(k.conkey) WITH ORDINALITY u(n, o) JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n),
      'target', (SELECT relname FROM pg_class WHERE oid = k.confrelid),
      'target_columns', (SELECT jsonb_agg(a.attname ORDER BY u.o) FROM unnest(k.confkey) WITH ORDINALITY u(n, o) JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n),
      'on_delete', k.confdeltype, 'on_update', k.confupdtype, 'deferrable', k.condeferrable, 'validated', k.convalidated)
    ELSE jsonb_build_object('name', k.conname, 'definition', pg_get_constraintdef(k.oid, true)) END AS j
  FROM pg_constraint k JOIN rel r ON r.oid = k.conrelid
)
SELECT jsonb_build_object(
  'alembic_head', (SELECT version_num FROM public.alembic_version),
  'extensions', (SELECT jsonb_agg(extname ORDER BY extname) FROM pg_extension WHERE extname <> 'plpgsql'),
  'tables', (SELECT jsonb_object_agg(r.relname, jsonb_build_object(
     'columns', (SELECT jsonb_agg(col.j ORDER BY col.attnum) FROM col WHERE col.attrelid = r.oid),
     'primary_key', (SELECT idx.j FROM idx WHERE idx.indrelid = r.oid AND idx.indisprimary),
     'indexes', coalesce((SELECT jsonb_agg(idx.j ORDER BY idx.name) FROM idx WHERE idx.indrelid = r.oid AND NOT idx.indisprimary), '[]'),
     'foreign_keys', coalesce((SELECT jsonb_agg(con.j ORDER BY con.conname) FROM con WHERE con.conrelid = r.oid AND con.contype = 'f'), '[]'),
     'checks', coalesce((SELECT jsonb_agg(con.j ORDER BY con.conname) FROM con WHERE con.conrelid = r.oid AND con.contype = 'c'), '[]'),
     'triggers', coalesce((SELECT jsonb_agg(t.tgname ORDER BY t.tgname) FROM pg_trigger t WHERE t.tgrelid = r.oid AND NOT t.tgisinternal), '[]')))
     FROM rel r WHERE r.relkind IN ('r','p')),
  'sequences', (SELECT jsonb_object_agg(s.sequencename, jsonb_build_object('type', s.data_type::text, 'start', s.start_value, 'increment', s.increment_by,
       'min', s.min_value, 'max', s.max_value, 'cycle', s.cycle, 'cache', s.cache_size,
       'owned_by', (SELECT t.relname || '.' || a.attname FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
                    WHERE d.objid = format('public.%I', s.sequencename)::regclass AND d.deptype IN ('a','i'))))
     FROM pg_sequences s WHERE s.schemaname = 'public'),
  'views', coalesce((SELECT jsonb_agg(relname ORDER BY relname) FROM rel WHERE relkind IN ('v','m')), '[]'),
  'types', coalesce((SELECT jsonb_agg(t.typname ORDER BY t.typname) FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = 'public' AND t.typtype IN ('e','d')), '[]'),
  'functions_outside_extensions', coalesce((SELECT jsonb_agg(p.proname ORDER BY p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public'
      AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')), '[]'));
