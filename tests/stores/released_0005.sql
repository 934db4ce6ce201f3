BEGIN TRANSACTION;
CREATE TABLE automc_agent_state (
	study_id INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	told INTEGER NOT NULL, 
	state BLOB NOT NULL, 
	kept TEXT NOT NULL, 
	CONSTRAINT pk_automc_agent_state PRIMARY KEY (study_id, revision), 
	CONSTRAINT fk_automc_agent_state_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id), 
	CONSTRAINT ck_automc_agent_state_told CHECK (told >= 0)
);
INSERT INTO "automc_agent_state" VALUES(1,0,5,X'7374617465','2026-11-22T20:12:46.782Z');
CREATE TABLE automc_artifact (
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	format TEXT NOT NULL, 
	file TEXT NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	proof TEXT NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_automc_artifact PRIMARY KEY (study_id, number, sha256), 
	CONSTRAINT fk_automc_artifact_study_id FOREIGN KEY(study_id, number) REFERENCES automc_trial (study_id, number)
)
 WITHOUT ROWID

;
INSERT INTO "automc_artifact" VALUES(1,0,'0000000000000000000000000000000000000000000000000000000000000000','safetensors','model.safetensors',1234,'{"passed":true}','2026-11-22T20:12:46.767Z');
CREATE TABLE automc_attempt (
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	message TEXT NOT NULL, 
	log TEXT NOT NULL, 
	host TEXT NOT NULL, 
	pid INTEGER, 
	started TEXT, 
	finished TEXT, 
	seconds DOUBLE, 
	fence INTEGER, 
	late BOOLEAN NOT NULL, 
	CONSTRAINT pk_automc_attempt PRIMARY KEY (study_id, number, attempt), 
	CONSTRAINT fk_automc_attempt_study_id FOREIGN KEY(study_id, number) REFERENCES automc_trial (study_id, number), 
	CONSTRAINT ck_automc_attempt_state CHECK (state IN ('waiting', 'running', 'complete', 'stopped', 'failed'))
)
 WITHOUT ROWID

;
INSERT INTO "automc_attempt" VALUES(1,0,1,'complete','','','','',NULL,'2026-11-22T20:12:45.722Z','2026-11-22T20:12:45.748Z',0.026,1,0);
INSERT INTO "automc_attempt" VALUES(1,1,1,'complete','','','','',NULL,'2026-11-22T20:12:45.788Z','2026-11-22T20:12:45.821Z',0.033,1,0);
INSERT INTO "automc_attempt" VALUES(1,2,1,'complete','','','','',NULL,'2026-11-22T20:12:45.851Z','2026-11-22T20:12:45.871Z',0.02,1,0);
INSERT INTO "automc_attempt" VALUES(1,3,1,'complete','','','','',NULL,'2026-11-22T20:12:45.908Z','2026-11-22T20:12:45.923Z',0.015,1,0);
INSERT INTO "automc_attempt" VALUES(1,4,1,'complete','','','','',NULL,'2026-11-22T20:12:45.940Z','2026-11-22T20:12:45.956Z',0.016,1,0);
INSERT INTO "automc_attempt" VALUES(1,5,1,'complete','','','','',NULL,'2026-11-22T20:12:45.999Z','2026-11-22T20:12:46.071Z',0.072,1,0);
INSERT INTO "automc_attempt" VALUES(1,6,1,'complete','','','','',NULL,'2026-11-22T20:12:46.130Z','2026-11-22T20:12:46.163Z',0.033,1,0);
INSERT INTO "automc_attempt" VALUES(1,7,1,'complete','','','','',NULL,'2026-11-22T20:12:46.209Z','2026-11-22T20:12:46.350Z',0.141,1,0);
INSERT INTO "automc_attempt" VALUES(1,8,1,'complete','','','','',NULL,'2026-11-22T20:12:46.423Z','2026-11-22T20:12:46.454Z',0.031,1,0);
INSERT INTO "automc_attempt" VALUES(1,9,1,'complete','','','','',NULL,'2026-11-22T20:12:46.491Z','2026-11-22T20:12:46.503Z',0.012,1,0);
INSERT INTO "automc_attempt" VALUES(1,10,1,'complete','','','','',NULL,'2026-11-22T20:12:46.559Z','2026-11-22T20:12:46.710Z',0.151,1,0);
CREATE TABLE automc_event (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at TEXT NOT NULL, 
	study_id INTEGER NOT NULL, 
	number INTEGER, 
	kind TEXT NOT NULL, 
	text TEXT NOT NULL, 
	CONSTRAINT fk_automc_event_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id)
);
INSERT INTO "automc_event" VALUES(1,'2026-11-22T20:12:45.531Z',1,NULL,'create','study old');
INSERT INTO "automc_event" VALUES(2,'2026-11-22T20:12:45.575Z',1,NULL,'take','fence 1: pid 3393 on host h');
INSERT INTO "automc_event" VALUES(3,'2026-11-22T20:12:45.699Z',1,0,'add','rung 0');
INSERT INTO "automc_event" VALUES(4,'2026-11-22T20:12:45.724Z',1,0,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(5,'2026-11-22T20:12:45.753Z',1,0,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(6,'2026-11-22T20:12:45.778Z',1,1,'add','rung 0');
INSERT INTO "automc_event" VALUES(7,'2026-11-22T20:12:45.789Z',1,1,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(8,'2026-11-22T20:12:45.823Z',1,1,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(9,'2026-11-22T20:12:45.838Z',1,2,'add','rung 0');
INSERT INTO "automc_event" VALUES(10,'2026-11-22T20:12:45.851Z',1,2,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(11,'2026-11-22T20:12:45.874Z',1,2,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(12,'2026-11-22T20:12:45.897Z',1,3,'add','rung 0');
INSERT INTO "automc_event" VALUES(13,'2026-11-22T20:12:45.908Z',1,3,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(14,'2026-11-22T20:12:45.929Z',1,3,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(15,'2026-11-22T20:12:45.935Z',1,4,'add','rung 0');
INSERT INTO "automc_event" VALUES(16,'2026-11-22T20:12:45.941Z',1,4,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(17,'2026-11-22T20:12:45.958Z',1,4,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(18,'2026-11-22T20:12:45.979Z',1,5,'add','rung 1');
INSERT INTO "automc_event" VALUES(19,'2026-11-22T20:12:45.999Z',1,5,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(20,'2026-11-22T20:12:46.088Z',1,5,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(21,'2026-11-22T20:12:46.116Z',1,6,'add','rung 0');
INSERT INTO "automc_event" VALUES(22,'2026-11-22T20:12:46.131Z',1,6,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(23,'2026-11-22T20:12:46.165Z',1,6,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(24,'2026-11-22T20:12:46.184Z',1,7,'add','rung 1');
INSERT INTO "automc_event" VALUES(25,'2026-11-22T20:12:46.209Z',1,7,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(26,'2026-11-22T20:12:46.361Z',1,7,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(27,'2026-11-22T20:12:46.402Z',1,8,'add','rung 0');
INSERT INTO "automc_event" VALUES(28,'2026-11-22T20:12:46.426Z',1,8,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(29,'2026-11-22T20:12:46.455Z',1,8,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(30,'2026-11-22T20:12:46.473Z',1,9,'add','rung 0');
INSERT INTO "automc_event" VALUES(31,'2026-11-22T20:12:46.492Z',1,9,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(32,'2026-11-22T20:12:46.505Z',1,9,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(33,'2026-11-22T20:12:46.537Z',1,10,'add','rung 1');
INSERT INTO "automc_event" VALUES(34,'2026-11-22T20:12:46.564Z',1,10,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(35,'2026-11-22T20:12:46.712Z',1,10,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(36,'2026-11-22T20:12:46.727Z',1,NULL,'release','fence 1');
INSERT INTO "automc_event" VALUES(37,'2026-11-22T20:12:46.769Z',1,0,'export','model.safetensors: 0000000000000000000000000000000000000000000000000000000000000000');
CREATE TABLE automc_front_change (
	study_id INTEGER NOT NULL, 
	place INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	entered BOOLEAN NOT NULL, 
	CONSTRAINT pk_automc_front_change PRIMARY KEY (study_id, place, number), 
	CONSTRAINT fk_automc_front_change_study_id FOREIGN KEY(study_id, number) REFERENCES automc_trial (study_id, number)
)
 WITHOUT ROWID

;
INSERT INTO "automc_front_change" VALUES(1,1,0,1);
INSERT INTO "automc_front_change" VALUES(1,2,1,1);
INSERT INTO "automc_front_change" VALUES(1,3,0,0);
INSERT INTO "automc_front_change" VALUES(1,3,2,1);
INSERT INTO "automc_front_change" VALUES(1,4,3,1);
INSERT INTO "automc_front_change" VALUES(1,5,3,0);
INSERT INTO "automc_front_change" VALUES(1,5,4,1);
INSERT INTO "automc_front_change" VALUES(1,7,6,1);
INSERT INTO "automc_front_change" VALUES(1,8,2,0);
INSERT INTO "automc_front_change" VALUES(1,8,7,1);
INSERT INTO "automc_front_change" VALUES(1,9,8,1);
INSERT INTO "automc_front_change" VALUES(1,10,4,0);
INSERT INTO "automc_front_change" VALUES(1,10,9,1);
INSERT INTO "automc_front_change" VALUES(1,11,6,0);
INSERT INTO "automc_front_change" VALUES(1,11,10,1);
CREATE TABLE automc_layer (
	study_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	in_channels INTEGER NOT NULL, 
	out_channels INTEGER NOT NULL, 
	kernel TEXT NOT NULL, 
	stride TEXT NOT NULL, 
	out_shape TEXT NOT NULL, 
	params BIGINT NOT NULL, 
	macs BIGINT NOT NULL, 
	group_name TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	CONSTRAINT pk_automc_layer PRIMARY KEY (study_id, position), 
	CONSTRAINT fk_automc_layer_study_id FOREIGN KEY(study_id) REFERENCES automc_model (study_id)
)
 WITHOUT ROWID

;
INSERT INTO "automc_layer" VALUES(1,0,'conv0','conv',3,16,'[3,3]','[1,1]','[16,16,16]',448,110592,'conv0','');
INSERT INTO "automc_layer" VALUES(1,1,'conv1','conv',16,32,'[3,3]','[1,1]','[32,8,8]',4640,294912,'conv1','');
INSERT INTO "automc_layer" VALUES(1,2,'linear','linear',32,10,'[]','[]','[10]',330,320,'','it makes the model''s output');
CREATE TABLE automc_layer_latency (
	device TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	milliseconds DOUBLE NOT NULL, 
	rounds INTEGER NOT NULL, 
	CONSTRAINT pk_automc_layer_latency PRIMARY KEY (device, "key"), 
	CONSTRAINT ck_automc_layer_latency_milliseconds CHECK (milliseconds >= 0)
)
 WITHOUT ROWID

;
INSERT INTO "automc_layer_latency" VALUES('cpu','conv 3x3 16',0.25,1);
CREATE TABLE automc_layout (
	study_id INTEGER NOT NULL, 
	layout INTEGER NOT NULL, 
	sites TEXT NOT NULL, 
	CONSTRAINT pk_automc_layout PRIMARY KEY (study_id, layout), 
	CONSTRAINT fk_automc_layout_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id)
);
INSERT INTO "automc_layout" VALUES(1,1,'[["distill","*","kd_alpha"],["distill","*","kd_temperature"],["prune","conv0","prune_ratio"],["prune","conv1","prune_ratio"],["quantize","conv0","activation_bits"],["quantize","conv0","weight_bits"],["quantize","conv1","activation_bits"],["quantize","conv1","weight_bits"],["quantize","linear","activation_bits"],["quantize","linear","weight_bits"]]');
CREATE TABLE automc_lease (
	study_id INTEGER NOT NULL, 
	fence INTEGER NOT NULL, 
	host TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	machine TEXT NOT NULL, 
	born TEXT NOT NULL, 
	token TEXT, 
	renewed DOUBLE NOT NULL, control TEXT DEFAULT 'go' NOT NULL
CONSTRAINT ck_automc_lease_control CHECK (control IN ('go', 'pause', 'stop', 'cancel')), 
	CONSTRAINT pk_automc_lease PRIMARY KEY (study_id), 
	CONSTRAINT fk_automc_lease_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id)
);
INSERT INTO "automc_lease" VALUES(1,1,'h',3393,'boot/pid:[1]','1',NULL,1.79537836557380127908e+09,'go');
CREATE TABLE automc_metric (
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	value DOUBLE, 
	kind TEXT NOT NULL, error DOUBLE, error_kind TEXT
CONSTRAINT ck_automc_metric_error_kind CHECK (error_kind IN ('finite', 'nan', '+inf', '-inf'))
CONSTRAINT ck_automc_metric_error CHECK ((coalesce(error_kind, '') = 'finite') = (error IS NOT NULL)), 
	CONSTRAINT pk_automc_metric PRIMARY KEY (study_id, number, name), 
	CONSTRAINT fk_automc_metric_study_id FOREIGN KEY(study_id, number) REFERENCES automc_trial (study_id, number), 
	CONSTRAINT ck_automc_metric_kind CHECK (kind IN ('finite', 'nan', '+inf', '-inf')), 
	CONSTRAINT ck_automc_metric_value CHECK ((kind = 'finite') = (value IS NOT NULL))
)
 WITHOUT ROWID

;
INSERT INTO "automc_metric" VALUES(1,0,'agreement',8.49705998168987508556e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'bops',10001664.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'bops_ratio',2.40676992982179482893e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'loss',2.14158168224242106969e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'macs',203072.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'macs_ratio',5.00394259580507760887e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'params',2890.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'params_ratio',0.533407161314138,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'size_bytes',4588.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'size_ratio',2.05998563218390801088e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'top1',8.07220698260538105373e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'agreement',5.70630089803035756013e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'bops',1189984.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'bops_ratio',2.8635412149108975012e-03,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'loss',6.1230740236159630907e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'macs',43846.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'macs_ratio',1.08041909793407983619e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'params',451.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'params_ratio',8.32410483573274295743e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'size_bytes',1951.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'size_ratio',8.75987787356321823128e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'top1',5.4209858531288390715e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'agreement',9.68081513987263830856e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'bops',5603360.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'bops_ratio',1.34837546571912950121e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'loss',8.37322809739324130928e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'macs',354530.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'macs_ratio',8.73605306733953645981e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'params',4664.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'params_ratio',8.60834256183093393666e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'size_bytes',3888.25,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'size_ratio',1.74580190373563232109e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'top1',9.19677438287900606006e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'agreement',7.43391536217504089734e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'bops',2468472.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'bops_ratio',5.94005575692911191171e-03,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'loss',3.47825700804729687209e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'macs',87812.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'macs_ratio',2.1637951427219681566e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'params',1344.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'params_ratio',2.48062015503875965549e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'size_bytes',2847.5,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'size_ratio',1.27851113505747127074e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'top1',7.06221959406628907451e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'agreement',7.5684323207740833439e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'bops',1942560.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'bops_ratio',4.67451715521999700692e-03,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'loss',3.29892432425567372344e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'macs',92360.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'macs_ratio',2.27586342848131201188e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'params',1270.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'params_ratio',2.34403839055001839142e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'size_bytes',2425.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'size_ratio',1.08881106321839074557e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'top1',7.19001070473537895466e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'agreement',9.45217631027858717907e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'bops',10001664.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'bops_ratio',2.40676992982179482893e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'loss',1.07633375006339196411e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'macs',203072.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'macs_ratio',5.00394259580507760887e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'params',2890.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'params_ratio',0.533407161314138,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'size_bytes',4588.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'size_ratio',2.05998563218390801088e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'top1',8.97956749476465754256e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'agreement',8.40936597827405374339e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'bops',6141056.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'bops_ratio',1.47776499172054872482e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'loss',2.24532305266690629386e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'macs',221384.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'macs_ratio',5.45517268569626234686e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'params',2726.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'params_ratio',5.03137689184200764813e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'size_bytes',3569.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'size_ratio',1.60246048850574723809e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'top1',7.98889767936035055662e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'agreement',9.88717065396050864833e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'bops',5603360.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'bops_ratio',1.34837546571912950121e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'loss',6.26403641765483354397e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'macs',354530.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'macs_ratio',8.73605306733953645981e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'params',4664.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'params_ratio',8.60834256183093393666e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'size_bytes',3888.25,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'size_ratio',1.74580190373563232109e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'top1',9.39281212126248266081e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'agreement',8.11239325342308914557e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'bops',4009344.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'bops_ratio',9.64796315644220192631e-03,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'loss',2.6048546372170749974e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'macs',177728.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'macs_ratio',4.37943542028071286509e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'params',2574.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'params_ratio',4.75083056478405318934e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'size_bytes',3489.25,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'size_ratio',1.56665319683908038639e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'top1',7.70677359075193413318e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'agreement',7.64731959709200936892e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'bops',2288168.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'bops_ratio',5.50617770880973064762e-03,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'loss',3.19523180405475393239e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'macs',115330.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'macs_ratio',2.84187233874783173881e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'params',1313.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'params_ratio',2.42340346991509775209e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'size_bytes',2218.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'size_ratio',9.95869252873563259864e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'top1',7.26495361723740851189e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'agreement',9.28132190906890364168e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'bops',6141056.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'bops_ratio',1.47776499172054872482e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'loss',1.25874403630169384715e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'macs',221384.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'macs_ratio',5.45517268569626234686e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'params',2726.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'params_ratio',5.03137689184200764813e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'size_bytes',3569.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'size_ratio',1.60246048850574723809e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'top1',8.81725581361545773795e-01,'finite',NULL,NULL);
CREATE TABLE automc_metric_point (
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	value DOUBLE, 
	kind TEXT NOT NULL, 
	CONSTRAINT pk_automc_metric_point PRIMARY KEY (study_id, number, attempt, step), 
	CONSTRAINT fk_automc_metric_point_study_id FOREIGN KEY(study_id, number) REFERENCES automc_trial (study_id, number), 
	CONSTRAINT ck_automc_metric_point_kind CHECK (kind IN ('finite', 'nan', '+inf', '-inf')), 
	CONSTRAINT ck_automc_metric_point_value CHECK ((kind = 'finite') = (value IS NOT NULL))
)
 WITHOUT ROWID

;
INSERT INTO "automc_metric_point" VALUES(1,5,1,4,6.56445011100365571898e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,5,1,8,4.0882758691854131916e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,5,1,12,2.72932263227925742121e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,5,1,16,1.9835132829575169433e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,5,1,20,1.57420443374203133934e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,7,1,4,6.11452000270574780316e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,7,1,8,3.63834576088750472067e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,7,1,12,2.27939252398134867272e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,7,1,16,1.53358317465960847236e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,7,1,20,1.12427432544412286841e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,10,1,4,6.74686039724195829592e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,10,1,8,4.27068615542371521343e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,10,1,12,2.91173291851755888792e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,10,1,16,2.16592356919581896512e-01,'finite');
INSERT INTO "automc_metric_point" VALUES(1,10,1,20,1.75661471998033336117e-01,'finite');
CREATE TABLE automc_model (
	study_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	weights TEXT, 
	input_shape TEXT NOT NULL, 
	params BIGINT NOT NULL, 
	macs BIGINT NOT NULL, 
	CONSTRAINT pk_automc_model PRIMARY KEY (study_id), 
	CONSTRAINT fk_automc_model_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id)
);
INSERT INTO "automc_model" VALUES(1,'digits_net',NULL,'[3,16,16]',5418,405824);
CREATE TABLE automc_policy (
	fingerprint VARCHAR(64) NOT NULL, 
	json TEXT NOT NULL, 
	CONSTRAINT pk_automc_policy PRIMARY KEY (fingerprint)
);
INSERT INTO "automc_policy" VALUES('641daa5f2b751b3a50a4ab34efb4cfd0490d9ce2568aeff1c082217b03fc3d74','{"distill":{"*":{"kd_alpha":0.5436249914654229,"kd_temperature":8.61137345140544}},"prune":{"conv0":{"prune_ratio":0.5},"conv1":{"prune_ratio":0.0}},"quantize":{"conv0":{"activation_bits":5,"weight_bits":2},"conv1":{"activation_bits":8,"weight_bits":8},"linear":{"activation_bits":6,"weight_bits":6}}}');
INSERT INTO "automc_policy" VALUES('a5af8befa6142103b90d5016e3025b1ecb86c475e8ca0e373c15f98fac768f1d','{"distill":{"*":{"kd_alpha":0.7257230733611507,"kd_temperature":4.156872091008294}},"prune":{"conv0":{"prune_ratio":0.8},"conv1":{"prune_ratio":0.8}},"quantize":{"conv0":{"activation_bits":6,"weight_bits":6},"conv1":{"activation_bits":4,"weight_bits":3},"linear":{"activation_bits":8,"weight_bits":2}}}');
INSERT INTO "automc_policy" VALUES('90ad23f03104feb231dfa303897a269558e0ca29b5903121ee472da75279e8b5','{"distill":{"*":{"kd_alpha":0.47952524364577886,"kd_temperature":1.8254906629702683}},"prune":{"conv0":{"prune_ratio":0.1},"conv1":{"prune_ratio":0.1}},"quantize":{"conv0":{"activation_bits":5,"weight_bits":5},"conv1":{"activation_bits":4,"weight_bits":3},"linear":{"activation_bits":4,"weight_bits":4}}}');
INSERT INTO "automc_policy" VALUES('af646cc919000f98f7a9fee9c2d93525bfc4e32bd764d2fac18400334bfa3dc0','{"distill":{"*":{"kd_alpha":0.06409010575320595,"kd_temperature":1.4614648003248962}},"prune":{"conv0":{"prune_ratio":0.8},"conv1":{"prune_ratio":0.2}},"quantize":{"conv0":{"activation_bits":8,"weight_bits":3},"conv1":{"activation_bits":5,"weight_bits":6},"linear":{"activation_bits":5,"weight_bits":6}}}');
INSERT INTO "automc_policy" VALUES('ecb2df36a1d1e9256ea7beabd869b9c281fe12f55bd2e6e0277d58e2187e55a2','{"distill":{"*":{"kd_alpha":0.7986934903475432,"kd_temperature":4.54665391765423}},"prune":{"conv0":{"prune_ratio":0.7},"conv1":{"prune_ratio":0.4}},"quantize":{"conv0":{"activation_bits":4,"weight_bits":4},"conv1":{"activation_bits":8,"weight_bits":3},"linear":{"activation_bits":6,"weight_bits":6}}}');
INSERT INTO "automc_policy" VALUES('6a0b90140ea3d647e3d336ee7a6bd509fd6ed02da5c754944a4674ce22c76988','{"distill":{"*":{"kd_alpha":0.13121008098316544,"kd_temperature":1.216624332542983}},"prune":{"conv0":{"prune_ratio":0.3},"conv1":{"prune_ratio":0.4}},"quantize":{"conv0":{"activation_bits":4,"weight_bits":6},"conv1":{"activation_bits":6,"weight_bits":5},"linear":{"activation_bits":8,"weight_bits":2}}}');
INSERT INTO "automc_policy" VALUES('35a18049d79a44fe73ea7e4f379e18846f26aa48f8c042af21ee7ff234c886cc','{"distill":{"*":{"kd_alpha":0.7139680675983598,"kd_temperature":1.741959533451352}},"prune":{"conv0":{"prune_ratio":0.6},"conv1":{"prune_ratio":0.0}},"quantize":{"conv0":{"activation_bits":8,"weight_bits":2},"conv1":{"activation_bits":5,"weight_bits":5},"linear":{"activation_bits":6,"weight_bits":5}}}');
INSERT INTO "automc_policy" VALUES('16ac764a43da3815a5b690493f6692a2100ff76ea3134f8459633d43e86acecc','{"distill":{"*":{"kd_alpha":0.5573882582393459,"kd_temperature":6.267277950464469}},"prune":{"conv0":{"prune_ratio":0.5},"conv1":{"prune_ratio":0.6}},"quantize":{"conv0":{"activation_bits":8,"weight_bits":3},"conv1":{"activation_bits":8,"weight_bits":2},"linear":{"activation_bits":5,"weight_bits":4}}}');
CREATE TABLE automc_revision (
	study_id INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	spec TEXT NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_automc_revision PRIMARY KEY (study_id, revision), 
	CONSTRAINT fk_automc_revision_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id)
);
INSERT INTO "automc_revision" VALUES(1,0,'{"name":"old","model":{"name":"digits_net","settings":{},"weights":null},"data":{"name":"digits","settings":{}},"rules":[{"operator":"prune","settings":{"prune_ratio":{"low":0.0,"high":0.8,"step":0.1,"log":false}},"layers":["*"],"exclude":[],"kinds":[],"indices":[]},{"operator":"quantize","settings":{"weight_bits":[2,3,4,5,6,8],"activation_bits":[4,5,6,8]},"layers":["*"],"exclude":[],"kinds":[],"indices":[]},{"operator":"distill","settings":{"kd_temperature":{"low":1.0,"high":10.0,"step":null,"log":true},"kd_alpha":{"low":0.0,"high":1.0,"step":null,"log":false}},"layers":["*"],"exclude":[],"kinds":[],"indices":[]}],"order":["prune","quantize","distill"],"objectives":{"top1":"maximize","size_bytes":"minimize"},"constraints":["macs_ratio <= 0.9"],"proposer":{"name":"random","settings":{}},"stopper":{"name":"never","settings":{}},"evaluator":{"name":"synthetic","settings":{"layers":3}},"rungs":[{"steps":0,"share":0.25,"cpus":1.0,"gpus":0.0,"resources":{}},{"steps":20,"share":0.5,"cpus":1.0,"gpus":0.0,"resources":{}}],"budget":{"trials":16,"seconds":null},"workers":{"count":0,"address":null,"window":4,"timeout_s":null,"memory_mb":null,"retries":2},"seed":0,"revision":0,"first_trial":0,"orders":[],"task":{"name":"classification","settings":{}}}','2026-11-22T20:12:45.522Z');
CREATE TABLE automc_study (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	facts TEXT NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_automc_study PRIMARY KEY (id), 
	CONSTRAINT uq_automc_study_name UNIQUE (name)
);
INSERT INTO "automc_study" VALUES(1,'old',0,'{"digests":{},"baseline":{"top1":0.95,"loss":0.05129329438755058,"agreement":1.0,"params":5418,"macs":405824,"bops":415563776,"size_bytes":22272.0,"params_ratio":1.0,"macs_ratio":1.0,"bops_ratio":1.0,"size_ratio":1.0},"space":{"order":["prune","quantize","distill"],"decisions":[["prune","conv0","prune_ratio","0..0.8 step 0.1"],["quantize","conv0","activation_bits","{4, 5, 6, 8}"],["quantize","conv0","weight_bits","{2, 3, 4, 5, 6, 8}"],["prune","conv1","prune_ratio","0..0.8 step 0.1"],["quantize","conv1","activation_bits","{4, 5, 6, 8}"],["quantize","conv1","weight_bits","{2, 3, 4, 5, 6, 8}"],["quantize","linear","activation_bits","{4, 5, 6, 8}"],["quantize","linear","weight_bits","{2, 3, 4, 5, 6, 8}"],["distill","*","kd_alpha","0..1"],["distill","*","kd_temperature","1..10 log"]],"fixed":[]},"layers":{"layers":[{"name":"conv0","index":0,"kind":"conv","in_channels":3,"out_channels":16,"kernel":[3,3],"stride":[1,1],"out_shape":[16,16,16],"params":448,"macs":110592,"group":"conv0","reason":""},{"name":"conv1","index":1,"kind":"conv","in_channels":16,"out_channels":32,"kernel":[3,3],"stride":[1,1],"out_shape":[32,8,8],"params":4640,"macs":294912,"group":"conv1","reason":""},{"name":"linear","index":2,"kind":"linear","in_channels":32,"out_channels":10,"kernel":[],"stride":[],"out_shape":[10],"params":330,"macs":320,"group":"","reason":"it makes the model''s output"}],"groups":[{"name":"conv0","channels":16,"producers":["conv0"],"consumers":["conv1"],"multiple":1},{"name":"conv1","channels":32,"producers":["conv1"],"consumers":["linear"],"multiple":1}],"input_shape":[3,16,16],"sensitivity":[],"blocks":[]},"warm_start":[]}','2026-11-22T20:12:45.514Z');
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
	finished TEXT, samples INTEGER DEFAULT '0' NOT NULL, place INTEGER, layout INTEGER DEFAULT '0' NOT NULL, decisions BLOB, 
	CONSTRAINT pk_automc_trial PRIMARY KEY (study_id, number), 
	CONSTRAINT fk_automc_trial_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id), 
	CONSTRAINT fk_automc_trial_policy FOREIGN KEY(policy) REFERENCES automc_policy (fingerprint), 
	CONSTRAINT ck_automc_trial_state CHECK (state IN ('waiting', 'running', 'complete', 'stopped', 'failed'))
);
INSERT INTO "automc_trial" VALUES(1,0,'641daa5f2b751b3a50a4ab34efb4cfd0490d9ce2568aeff1c082217b03fc3d74','','complete',0,'','',1,NULL,'{"conv0":{"channels":8},"conv1":{"channels":32}}',NULL,2.25079100346192717552e-03,'2026-11-22T20:12:45.682Z','2026-11-22T20:12:45.714Z','2026-11-22T20:12:45.741Z',0,1,1,X'BFE165603CF43B8FC0213905F0E6DBA7BFE00000000000008000000000000000C014000000000000C000000000000000C020000000000000C020000000000000C018000000000000C018000000000000');
INSERT INTO "automc_trial" VALUES(1,1,'a5af8befa6142103b90d5016e3025b1ecb86c475e8ca0e373c15f98fac768f1d','','complete',0,'','',1,NULL,'{"conv0":{"channels":4},"conv1":{"channels":7}}',NULL,3.56311599898617714643e-03,'2026-11-22T20:12:45.771Z','2026-11-22T20:12:45.783Z','2026-11-22T20:12:45.814Z',0,2,1,X'BFE7391F98413D73C010A0A313D2249EBFE999999999999ABFE999999999999AC018000000000000C018000000000000C010000000000000C008000000000000C020000000000000C000000000000000');
INSERT INTO "automc_trial" VALUES(1,2,'90ad23f03104feb231dfa303897a269558e0ca29b5903121ee472da75279e8b5','','complete',0,'','',1,NULL,'{"conv0":{"channels":15},"conv1":{"channels":29}}',NULL,1.0447319946251809597e-03,'2026-11-22T20:12:45.837Z','2026-11-22T20:12:45.850Z','2026-11-22T20:12:45.867Z',0,3,1,X'BFDEB08AA5C429D0BFFD3535B289C544BFB999999999999ABFB999999999999AC014000000000000C014000000000000C010000000000000C008000000000000C010000000000000C010000000000000');
INSERT INTO "automc_trial" VALUES(1,3,'af646cc919000f98f7a9fee9c2d93525bfc4e32bd764d2fac18400334bfa3dc0','','complete',0,'','',1,NULL,'{"conv0":{"channels":4},"conv1":{"channels":26}}',NULL,2.30764001025818288326e-03,'2026-11-22T20:12:45.891Z','2026-11-22T20:12:45.907Z','2026-11-22T20:12:45.921Z',0,4,1,X'BFB068358C350B20BFF76228EA1A68DBBFE999999999999ABFC999999999999AC020000000000000C008000000000000C014000000000000C018000000000000C014000000000000C018000000000000');
INSERT INTO "automc_trial" VALUES(1,4,'ecb2df36a1d1e9256ea7beabd869b9c281fe12f55bd2e6e0277d58e2187e55a2','','complete',0,'','',1,NULL,'{"conv0":{"channels":5},"conv1":{"channels":20}}',NULL,1.09367400000337511301e-03,'2026-11-22T20:12:45.934Z','2026-11-22T20:12:45.939Z','2026-11-22T20:12:45.954Z',0,5,1,X'BFE98EE5A69243E9C0122FC60B6A3885BFE6666666666666BFD999999999999AC010000000000000C010000000000000C020000000000000C008000000000000C018000000000000C018000000000000');
INSERT INTO "automc_trial" VALUES(1,5,'641daa5f2b751b3a50a4ab34efb4cfd0490d9ce2568aeff1c082217b03fc3d74','','complete',1,'','',1,NULL,'{"conv0":{"channels":8},"conv1":{"channels":32}}',NULL,6.60778839956037700176e-02,'2026-11-22T20:12:45.967Z','2026-11-22T20:12:45.983Z','2026-11-22T20:12:46.070Z',0,6,1,X'BFE165603CF43B8FC0213905F0E6DBA7BFE00000000000008000000000000000C014000000000000C000000000000000C020000000000000C020000000000000C018000000000000C018000000000000');
INSERT INTO "automc_trial" VALUES(1,6,'6a0b90140ea3d647e3d336ee7a6bd509fd6ed02da5c754944a4674ce22c76988','','complete',0,'','',1,NULL,'{"conv0":{"channels":12},"conv1":{"channels":20}}',NULL,5.84839499788358807563e-03,'2026-11-22T20:12:46.099Z','2026-11-22T20:12:46.129Z','2026-11-22T20:12:46.150Z',0,7,1,X'BFC0CB7DEF5D35E4BFF3774B137CA399BFD3333333333333BFD999999999999AC010000000000000C018000000000000C018000000000000C014000000000000C020000000000000C000000000000000');
INSERT INTO "automc_trial" VALUES(1,7,'90ad23f03104feb231dfa303897a269558e0ca29b5903121ee472da75279e8b5','','complete',1,'','',1,NULL,'{"conv0":{"channels":15},"conv1":{"channels":29}}',NULL,1.27343227009987458586e-01,'2026-11-22T20:12:46.171Z','2026-11-22T20:12:46.194Z','2026-11-22T20:12:46.342Z',0,8,1,X'BFDEB08AA5C429D0BFFD3535B289C544BFB999999999999ABFB999999999999AC014000000000000C014000000000000C010000000000000C008000000000000C010000000000000C010000000000000');
INSERT INTO "automc_trial" VALUES(1,8,'35a18049d79a44fe73ea7e4f379e18846f26aa48f8c042af21ee7ff234c886cc','','complete',0,'','',1,NULL,'{"conv0":{"channels":7},"conv1":{"channels":32}}',NULL,2.60044995229691267013e-04,'2026-11-22T20:12:46.400Z','2026-11-22T20:12:46.422Z','2026-11-22T20:12:46.451Z',0,9,1,X'BFE6D8D38F97250DBFFBDF10F5B21048BFE33333333333338000000000000000C020000000000000C000000000000000C014000000000000C014000000000000C018000000000000C014000000000000');
INSERT INTO "automc_trial" VALUES(1,9,'16ac764a43da3815a5b690493f6692a2100ff76ea3134f8459633d43e86acecc','','complete',0,'','',1,NULL,'{"conv0":{"channels":8},"conv1":{"channels":13}}',NULL,0.00229041300190147,'2026-11-22T20:12:46.472Z','2026-11-22T20:12:46.490Z','2026-11-22T20:12:46.501Z',0,10,1,X'BFE1D61FE689FF20C01911B14FA0BF49BFE0000000000000BFE3333333333333C020000000000000C008000000000000C020000000000000C000000000000000C014000000000000C010000000000000');
INSERT INTO "automc_trial" VALUES(1,10,'6a0b90140ea3d647e3d336ee7a6bd509fd6ed02da5c754944a4674ce22c76988','','complete',1,'','',1,NULL,'{"conv0":{"channels":12},"conv1":{"channels":20}}',NULL,1.23271324002416804432e-01,'2026-11-22T20:12:46.531Z','2026-11-22T20:12:46.558Z','2026-11-22T20:12:46.708Z',0,11,1,X'BFC0CB7DEF5D35E4BFF3774B137CA399BFD3333333333333BFD999999999999AC010000000000000C018000000000000C018000000000000C014000000000000C020000000000000C000000000000000');
CREATE TABLE automc_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT automc_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "automc_version" VALUES('0005');
CREATE INDEX ix_automc_trial_state ON automc_trial (study_id, state);
CREATE INDEX ix_automc_trial_policy ON automc_trial (policy);
CREATE INDEX ix_automc_event_study ON automc_event (study_id, id);
CREATE VIEW automc_trial_layers AS
SELECT s.name AS study, t.number AS trial, o.key AS operator, l.key AS layer, v.key AS setting, v.value AS value
FROM automc_trial t
JOIN automc_study s ON s.id = t.study_id
JOIN automc_policy p ON p.fingerprint = t.policy
JOIN json_each(p.json) o
JOIN json_each(o.value) l
JOIN json_each(l.value) v;
CREATE UNIQUE INDEX ix_automc_trial_place ON automc_trial (study_id, place);
CREATE INDEX ix_automc_metric_value ON automc_metric (study_id, name, kind, value, number);
CREATE VIEW automc_trials AS
SELECT 
s.name AS study, t.number AS trial, t.state, t.rung, t.reason, t.message, t.attempts, t.twin,
(SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'top1') AS top1, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'top5') AS top5, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'top1_worst_class') AS top1_worst_class, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'loss') AS loss, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'agreement') AS agreement, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'mse') AS mse, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'mae') AS mae, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'r2') AS r2, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'teacher_r2') AS teacher_r2, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'miou') AS miou, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'pixel_accuracy') AS pixel_accuracy, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'map50') AS map50, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'map') AS map, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'perplexity') AS perplexity, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'cosine') AS cosine, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'score') AS score, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_ms') AS latency_ms, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_torch_ms') AS latency_torch_ms, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_ratio') AS latency_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'params') AS params, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'params_nonzero') AS params_nonzero, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'macs') AS macs, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'bops') AS bops, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'size_bytes') AS size_bytes, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_predicted_ms') AS latency_predicted_ms, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'activation_bytes') AS activation_bytes, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'energy_model_mj') AS energy_model_mj, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'params_ratio') AS params_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'params_nonzero_ratio') AS params_nonzero_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'macs_ratio') AS macs_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'bops_ratio') AS bops_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'size_ratio') AS size_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'activation_ratio') AS activation_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_predicted_ratio') AS latency_predicted_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'energy_model_ratio') AS energy_model_ratio,
(SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'top1') AS top1_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'top5') AS top5_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'top1_worst_class') AS top1_worst_class_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'loss') AS loss_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'agreement') AS agreement_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'mse') AS mse_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'mae') AS mae_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'r2') AS r2_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'teacher_r2') AS teacher_r2_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'miou') AS miou_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'pixel_accuracy') AS pixel_accuracy_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'map50') AS map50_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'map') AS map_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'perplexity') AS perplexity_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'cosine') AS cosine_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'score') AS score_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_ms') AS latency_ms_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_torch_ms') AS latency_torch_ms_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_ratio') AS latency_ratio_error,
t.samples, t.seconds, t.artifact, t.policy, t.created, t.started, t.finished
 FROM automc_trial t JOIN automc_study s ON s.id = t.study_id;
CREATE VIEW automc_front AS
SELECT 
s.name AS study, t.number AS trial, t.state, t.rung, t.reason, t.message, t.attempts, t.twin,
(SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'top1') AS top1, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'top5') AS top5, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'top1_worst_class') AS top1_worst_class, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'loss') AS loss, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'agreement') AS agreement, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'mse') AS mse, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'mae') AS mae, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'r2') AS r2, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'teacher_r2') AS teacher_r2, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'miou') AS miou, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'pixel_accuracy') AS pixel_accuracy, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'map50') AS map50, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'map') AS map, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'perplexity') AS perplexity, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'cosine') AS cosine, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'score') AS score, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_ms') AS latency_ms, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_torch_ms') AS latency_torch_ms, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_ratio') AS latency_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'params') AS params, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'params_nonzero') AS params_nonzero, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'macs') AS macs, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'bops') AS bops, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'size_bytes') AS size_bytes, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_predicted_ms') AS latency_predicted_ms, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'activation_bytes') AS activation_bytes, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'energy_model_mj') AS energy_model_mj, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'params_ratio') AS params_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'params_nonzero_ratio') AS params_nonzero_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'macs_ratio') AS macs_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'bops_ratio') AS bops_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'size_ratio') AS size_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'activation_ratio') AS activation_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_predicted_ratio') AS latency_predicted_ratio, (SELECT m.value FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'energy_model_ratio') AS energy_model_ratio,
(SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'top1') AS top1_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'top5') AS top5_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'top1_worst_class') AS top1_worst_class_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'loss') AS loss_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'agreement') AS agreement_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'mse') AS mse_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'mae') AS mae_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'r2') AS r2_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'teacher_r2') AS teacher_r2_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'miou') AS miou_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'pixel_accuracy') AS pixel_accuracy_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'map50') AS map50_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'map') AS map_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'perplexity') AS perplexity_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'cosine') AS cosine_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'score') AS score_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_ms') AS latency_ms_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_torch_ms') AS latency_torch_ms_error, (SELECT m.error FROM automc_metric m WHERE m.study_id = t.study_id AND m.number = t.number AND m.name = 'latency_ratio') AS latency_ratio_error,
t.samples, t.seconds, t.artifact, t.policy, t.created, t.started, t.finished
 FROM automc_front_change c
JOIN automc_trial t ON t.study_id = c.study_id AND t.number = c.number
JOIN automc_study s ON s.id = c.study_id
WHERE c.entered AND NOT EXISTS (
    SELECT 1 FROM automc_front_change d
    WHERE d.study_id = c.study_id AND d.number = c.number AND d.place > c.place
);
CREATE VIEW automc_metrics AS
SELECT s.name AS study, m.number AS trial, m.name AS metric, m.value, m.kind, m.error
FROM automc_metric m JOIN automc_study s ON s.id = m.study_id;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('automc_event',37);
COMMIT;
