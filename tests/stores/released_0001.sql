BEGIN TRANSACTION;
CREATE TABLE automc_event (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at TEXT NOT NULL, 
	study_id INTEGER NOT NULL, 
	number INTEGER, 
	kind TEXT NOT NULL, 
	text TEXT NOT NULL, 
	CONSTRAINT fk_automc_event_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id)
);
INSERT INTO "automc_event" VALUES(1,'2026-11-22T05:43:18.506Z',1,NULL,'create','study old');
INSERT INTO "automc_event" VALUES(2,'2026-11-22T05:43:18.516Z',1,0,'add','rung 0');
INSERT INTO "automc_event" VALUES(3,'2026-11-22T05:43:18.520Z',1,1,'add','rung 0');
INSERT INTO "automc_event" VALUES(4,'2026-11-22T05:43:18.524Z',1,2,'add','rung 0');
INSERT INTO "automc_event" VALUES(5,'2026-11-22T05:43:18.529Z',1,3,'add','rung 0');
INSERT INTO "automc_event" VALUES(6,'2026-11-22T05:43:18.534Z',1,4,'add','rung 0');
INSERT INTO "automc_event" VALUES(7,'2026-11-22T05:43:18.538Z',1,5,'add','rung 0');
INSERT INTO "automc_event" VALUES(8,'2026-11-22T05:43:18.554Z',1,0,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(9,'2026-11-22T05:43:18.568Z',1,1,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(10,'2026-11-22T05:43:18.578Z',1,2,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(11,'2026-11-22T05:43:18.609Z',1,3,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(12,'2026-11-22T05:43:18.650Z',1,0,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(13,'2026-11-22T05:43:18.687Z',1,1,'move','running -> stopped, attempt 1');
INSERT INTO "automc_event" VALUES(14,'2026-11-22T05:43:18.702Z',1,2,'move','running -> failed, attempt 1, nan: the loss became nan');
INSERT INTO "automc_event" VALUES(15,'2026-11-22T05:43:18.731Z',1,4,'move','waiting -> complete, attempt 0, as trial 0');
CREATE TABLE automc_lease (
	study_id INTEGER NOT NULL, 
	fence INTEGER NOT NULL, 
	host TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	machine TEXT NOT NULL, 
	born TEXT NOT NULL, 
	token TEXT, 
	renewed DOUBLE NOT NULL, 
	stop_asked BOOLEAN NOT NULL, 
	CONSTRAINT pk_automc_lease PRIMARY KEY (study_id), 
	CONSTRAINT fk_automc_lease_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id)
);
CREATE TABLE automc_metric (
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	value DOUBLE, 
	kind TEXT NOT NULL, 
	CONSTRAINT pk_automc_metric PRIMARY KEY (study_id, number, name), 
	CONSTRAINT fk_automc_metric_study_id FOREIGN KEY(study_id, number) REFERENCES automc_trial (study_id, number), 
	CONSTRAINT ck_automc_metric_kind CHECK (kind IN ('finite', 'nan', '+inf', '-inf')), 
	CONSTRAINT ck_automc_metric_value CHECK ((kind = 'finite') = (value IS NOT NULL))
)
 WITHOUT ROWID

;
INSERT INTO "automc_metric" VALUES(1,0,'loss',0.1,'finite');
INSERT INTO "automc_metric" VALUES(1,0,'size_bytes',4096.0,'finite');
INSERT INTO "automc_metric" VALUES(1,0,'top1',0.975,'finite');
INSERT INTO "automc_metric" VALUES(1,1,'loss',NULL,'+inf');
INSERT INTO "automc_metric" VALUES(1,1,'top1',0.5,'finite');
INSERT INTO "automc_metric" VALUES(1,4,'loss',0.1,'finite');
INSERT INTO "automc_metric" VALUES(1,4,'size_bytes',4096.0,'finite');
INSERT INTO "automc_metric" VALUES(1,4,'top1',0.975,'finite');
CREATE TABLE automc_point (
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	value DOUBLE, 
	kind TEXT NOT NULL, 
	CONSTRAINT pk_automc_point PRIMARY KEY (study_id, number, attempt, step), 
	CONSTRAINT fk_automc_point_study_id FOREIGN KEY(study_id, number) REFERENCES automc_trial (study_id, number), 
	CONSTRAINT ck_automc_point_kind CHECK (kind IN ('finite', 'nan', '+inf', '-inf')), 
	CONSTRAINT ck_automc_point_value CHECK ((kind = 'finite') = (value IS NOT NULL))
)
 WITHOUT ROWID

;
INSERT INTO "automc_point" VALUES(1,0,1,10,0.5,'finite');
INSERT INTO "automc_point" VALUES(1,0,1,20,NULL,'nan');
CREATE TABLE automc_policy (
	fingerprint VARCHAR(64) NOT NULL, 
	json TEXT NOT NULL, 
	CONSTRAINT pk_automc_policy PRIMARY KEY (fingerprint)
);
INSERT INTO "automc_policy" VALUES('6fb1ce46aae865e78f7a90c39d9e0bc9fb281d78318e1934780cb56d15d1d21a','{"prune":{"conv1":{"prune_ratio":0.0}},"quantize":{"conv2":{"weight_bits":4}}}');
INSERT INTO "automc_policy" VALUES('913459f73677baa43a2061a583f1d81930395ec215242ac7c52b36e312541c27','{"prune":{"conv1":{"prune_ratio":0.1}},"quantize":{"conv2":{"weight_bits":4}}}');
INSERT INTO "automc_policy" VALUES('ea46e696aca308b962348f74718dd082eaab46ef1aa61d12868c5e649659edc3','{"prune":{"conv1":{"prune_ratio":0.2}},"quantize":{"conv2":{"weight_bits":4}}}');
INSERT INTO "automc_policy" VALUES('35ea05dfb96314b464d4b320492514977e7d8f71fdc91df59465956ad1824228','{"prune":{"conv1":{"prune_ratio":0.3}},"quantize":{"conv2":{"weight_bits":4}}}');
INSERT INTO "automc_policy" VALUES('64433d023851164b7900dffd53b1c76f4a3aea2da49dd85c4f9f233d5934e715','{"prune":{"conv1":{"prune_ratio":0.4}},"quantize":{"conv2":{"weight_bits":4}}}');
INSERT INTO "automc_policy" VALUES('1e56ff1ea6c951853d28c0210a2146ee9192aced0b97034d8c5e443374ccea72','{"prune":{"conv1":{"prune_ratio":0.5}},"quantize":{"conv2":{"weight_bits":4}}}');
CREATE TABLE automc_revision (
	study_id INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	spec TEXT NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_automc_revision PRIMARY KEY (study_id, revision), 
	CONSTRAINT fk_automc_revision_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id)
);
INSERT INTO "automc_revision" VALUES(1,0,'{"name":"old","model":{"name":"digits_net","settings":{},"weights":null},"data":{"name":"digits","settings":{}},"rules":[{"operator":"prune","settings":{"prune_ratio":{"low":0.0,"high":0.8,"step":0.1,"log":false}},"layers":["*"],"exclude":[],"kinds":[],"indices":[]},{"operator":"quantize","settings":{"weight_bits":[2,4,8]},"layers":["*"],"exclude":[],"kinds":[],"indices":[]}],"order":["prune","quantize"],"objectives":{"top1":"maximize","size_bytes":"minimize"},"constraints":[],"proposer":{"name":"tpe","settings":{}},"stopper":{"name":"never","settings":{}},"evaluator":{"name":"network","settings":{}},"rungs":[{"steps":0,"share":0.25}],"budget":{"trials":60,"seconds":null},"workers":{"count":1,"address":null,"window":4,"timeout_s":null},"seed":0,"revision":0,"first_trial":0,"orders":[]}','2026-11-22T05:43:18.505Z');
CREATE TABLE automc_study (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	facts TEXT NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_automc_study PRIMARY KEY (id), 
	CONSTRAINT uq_automc_study_name UNIQUE (name)
);
INSERT INTO "automc_study" VALUES(1,'old',0,'{"baseline":{"top1":0.99}}','2026-11-22T05:43:18.501Z');
CREATE TABLE automc_trial (
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	policy VARCHAR(64) NOT NULL, 
	memo TEXT NOT NULL, 
	state TEXT NOT NULL, 
	rung INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	message TEXT NOT NULL, 
	attempts INTEGER NOT NULL, 
	twin INTEGER, 
	realized TEXT, 
	artifact VARCHAR(64), 
	seconds DOUBLE, 
	created TEXT NOT NULL, 
	started TEXT, 
	finished TEXT, 
	CONSTRAINT pk_automc_trial PRIMARY KEY (study_id, number), 
	CONSTRAINT fk_automc_trial_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id), 
	CONSTRAINT fk_automc_trial_policy FOREIGN KEY(policy) REFERENCES automc_policy (fingerprint), 
	CONSTRAINT ck_automc_trial_state CHECK (state IN ('waiting', 'running', 'complete', 'stopped', 'failed'))
);
INSERT INTO "automc_trial" VALUES(1,0,'6fb1ce46aae865e78f7a90c39d9e0bc9fb281d78318e1934780cb56d15d1d21a','memo','complete',0,'','',1,NULL,'{"conv1":{"channels":3}}',NULL,1.5,'2026-11-22T05:43:18.515Z','2026-11-22T05:43:18.552Z','2026-11-22T05:43:18.646Z');
INSERT INTO "automc_trial" VALUES(1,1,'913459f73677baa43a2061a583f1d81930395ec215242ac7c52b36e312541c27','memo','stopped',0,'','',1,NULL,'{}','0000000000000000000000000000000000000000000000000000000000000000',2.5,'2026-11-22T05:43:18.520Z','2026-11-22T05:43:18.566Z','2026-11-22T05:43:18.685Z');
INSERT INTO "automc_trial" VALUES(1,2,'ea46e696aca308b962348f74718dd082eaab46ef1aa61d12868c5e649659edc3','memo','failed',0,'nan','the loss became nan',1,NULL,NULL,NULL,NULL,'2026-11-22T05:43:18.523Z','2026-11-22T05:43:18.576Z','2026-11-22T05:43:18.701Z');
INSERT INTO "automc_trial" VALUES(1,3,'35ea05dfb96314b464d4b320492514977e7d8f71fdc91df59465956ad1824228','memo','running',0,'','',1,NULL,NULL,NULL,NULL,'2026-11-22T05:43:18.528Z','2026-11-22T05:43:18.602Z',NULL);
INSERT INTO "automc_trial" VALUES(1,4,'64433d023851164b7900dffd53b1c76f4a3aea2da49dd85c4f9f233d5934e715','memo','complete',0,'','',0,0,'{"conv1":{"channels":3}}',NULL,1.5,'2026-11-22T05:43:18.533Z',NULL,'2026-11-22T05:43:18.730Z');
INSERT INTO "automc_trial" VALUES(1,5,'1e56ff1ea6c951853d28c0210a2146ee9192aced0b97034d8c5e443374ccea72','memo','waiting',0,'','',0,NULL,NULL,NULL,NULL,'2026-11-22T05:43:18.538Z',NULL,NULL);
CREATE TABLE automc_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT automc_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "automc_version" VALUES('0001');
CREATE INDEX ix_automc_trial_state ON automc_trial (study_id, state);
CREATE INDEX ix_automc_trial_policy ON automc_trial (policy);
CREATE INDEX ix_automc_event_study ON automc_event (study_id, id);
CREATE VIEW automc_trials AS
SELECT s.name AS study, t.number AS trial, t.state, t.rung, t.reason, t.message, t.attempts, t.twin,
       MAX(CASE WHEN m.name = 'top1' THEN m.value END) AS top1, MAX(CASE WHEN m.name = 'loss' THEN m.value END) AS loss, MAX(CASE WHEN m.name = 'agreement' THEN m.value END) AS agreement, MAX(CASE WHEN m.name = 'params' THEN m.value END) AS params, MAX(CASE WHEN m.name = 'macs' THEN m.value END) AS macs, MAX(CASE WHEN m.name = 'bops' THEN m.value END) AS bops, MAX(CASE WHEN m.name = 'size_bytes' THEN m.value END) AS size_bytes, MAX(CASE WHEN m.name = 'latency_ms' THEN m.value END) AS latency_ms, MAX(CASE WHEN m.name = 'params_ratio' THEN m.value END) AS params_ratio, MAX(CASE WHEN m.name = 'macs_ratio' THEN m.value END) AS macs_ratio, MAX(CASE WHEN m.name = 'bops_ratio' THEN m.value END) AS bops_ratio, MAX(CASE WHEN m.name = 'size_ratio' THEN m.value END) AS size_ratio, MAX(CASE WHEN m.name = 'latency_ratio' THEN m.value END) AS latency_ratio,
       t.seconds, t.artifact, t.policy, t.created, t.started, t.finished
FROM automc_trial t
JOIN automc_study s ON s.id = t.study_id
LEFT JOIN automc_metric m ON m.study_id = t.study_id AND m.number = t.number
GROUP BY s.id, t.study_id, t.number;
CREATE VIEW automc_trial_layers AS
SELECT s.name AS study, t.number AS trial, o.key AS operator, l.key AS layer, v.key AS setting, v.value AS value
FROM automc_trial t
JOIN automc_study s ON s.id = t.study_id
JOIN automc_policy p ON p.fingerprint = t.policy
JOIN json_each(p.json) o
JOIN json_each(o.value) l
JOIN json_each(l.value) v;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('automc_event',15);
COMMIT;
