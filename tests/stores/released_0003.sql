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
INSERT INTO "automc_agent_state" VALUES(1,0,5,X'7374617465','2026-11-22T15:36:16.322Z');
CREATE TABLE automc_event (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at TEXT NOT NULL, 
	study_id INTEGER NOT NULL, 
	number INTEGER, 
	kind TEXT NOT NULL, 
	text TEXT NOT NULL, 
	CONSTRAINT fk_automc_event_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id)
);
INSERT INTO "automc_event" VALUES(1,'2026-11-22T15:36:14.275Z',1,NULL,'create','study old');
INSERT INTO "automc_event" VALUES(2,'2026-11-22T15:36:14.327Z',1,NULL,'take','fence 1: pid 3393 on host h');
INSERT INTO "automc_event" VALUES(3,'2026-11-22T15:36:14.429Z',1,0,'add','rung 0');
INSERT INTO "automc_event" VALUES(4,'2026-11-22T15:36:14.481Z',1,0,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(5,'2026-11-22T15:36:14.522Z',1,0,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(6,'2026-11-22T15:36:14.559Z',1,1,'add','rung 0');
INSERT INTO "automc_event" VALUES(7,'2026-11-22T15:36:14.595Z',1,1,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(8,'2026-11-22T15:36:14.636Z',1,1,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(9,'2026-11-22T15:36:14.667Z',1,2,'add','rung 0');
INSERT INTO "automc_event" VALUES(10,'2026-11-22T15:36:14.707Z',1,2,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(11,'2026-11-22T15:36:14.743Z',1,2,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(12,'2026-11-22T15:36:14.786Z',1,3,'add','rung 0');
INSERT INTO "automc_event" VALUES(13,'2026-11-22T15:36:14.819Z',1,3,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(14,'2026-11-22T15:36:14.859Z',1,3,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(15,'2026-11-22T15:36:14.895Z',1,4,'add','rung 0');
INSERT INTO "automc_event" VALUES(16,'2026-11-22T15:36:14.936Z',1,4,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(17,'2026-11-22T15:36:14.981Z',1,4,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(18,'2026-11-22T15:36:15.029Z',1,5,'add','rung 1');
INSERT INTO "automc_event" VALUES(19,'2026-11-22T15:36:15.068Z',1,5,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(20,'2026-11-22T15:36:15.233Z',1,5,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(21,'2026-11-22T15:36:15.267Z',1,6,'add','rung 0');
INSERT INTO "automc_event" VALUES(22,'2026-11-22T15:36:15.312Z',1,6,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(23,'2026-11-22T15:36:15.360Z',1,6,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(24,'2026-11-22T15:36:15.422Z',1,7,'add','rung 1');
INSERT INTO "automc_event" VALUES(25,'2026-11-22T15:36:15.465Z',1,7,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(26,'2026-11-22T15:36:15.704Z',1,7,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(27,'2026-11-22T15:36:15.731Z',1,8,'add','rung 0');
INSERT INTO "automc_event" VALUES(28,'2026-11-22T15:36:15.763Z',1,8,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(29,'2026-11-22T15:36:15.799Z',1,8,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(30,'2026-11-22T15:36:15.848Z',1,9,'add','rung 0');
INSERT INTO "automc_event" VALUES(31,'2026-11-22T15:36:15.882Z',1,9,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(32,'2026-11-22T15:36:15.927Z',1,9,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(33,'2026-11-22T15:36:15.963Z',1,10,'add','rung 1');
INSERT INTO "automc_event" VALUES(34,'2026-11-22T15:36:16.000Z',1,10,'move','waiting -> running, attempt 1');
INSERT INTO "automc_event" VALUES(35,'2026-11-22T15:36:16.208Z',1,10,'move','running -> complete, attempt 1');
INSERT INTO "automc_event" VALUES(36,'2026-11-22T15:36:16.252Z',1,NULL,'release','fence 1');
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
INSERT INTO "automc_layer_latency" VALUES('cpu','linear 10',0.01,1);
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
INSERT INTO "automc_lease" VALUES(1,1,'h',3393,'boot/pid:[1]','1',NULL,1.79536177538690185553e+09,0);
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
INSERT INTO "automc_metric" VALUES(1,0,'agreement',8.27932242231148363131e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'bops',3264512.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'bops_ratio',7.85562214161804155121e-03,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'loss',2.40117255387103600838e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'macs',203072.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'macs_ratio',5.00394259580507760887e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'params',2890.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'params_ratio',0.533407161314138,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'size_bytes',2940.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'size_ratio',1.32004310344827596734e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,0,'top1',0.7825,'finite',2.06135785623611372807e-02,'finite');
INSERT INTO "automc_metric" VALUES(1,1,'agreement',6.06554721433183341439e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'bops',2360896.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'bops_ratio',5.68118815052830791051e-03,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'loss',5.51253624103946404666e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'macs',50788.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'macs_ratio',1.25147847342690438088e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'params',592.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'params_ratio',1.09265411590992983503e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'size_bytes',2221.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'size_ratio',9.97216235632183839454e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,1,'top1',0.56,'finite',2.47888327341058076203e-02,'finite');
INSERT INTO "automc_metric" VALUES(1,2,'agreement',8.31319640022374461985e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'bops',5900800.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'bops_ratio',1.41995052042264632841e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'loss',2.36034207438234305831e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'macs',258208.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'macs_ratio',6.36256111023497883394e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'params',2938.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'params_ratio',5.42266519010705105863e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'size_bytes',2758.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'size_ratio',1.23832614942528729251e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,2,'top1',0.8075,'finite',1.97035100182148155412e-02,'finite');
INSERT INTO "automc_metric" VALUES(1,3,'agreement',6.83457501309473469675e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'bops',2732096.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'bops_ratio',6.57443251261630688675e-03,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'loss',4.31884097179090820084e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'macs',87812.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'macs_ratio',2.1637951427219681566e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'params',1344.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'params_ratio',2.48062015503875965549e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'size_bytes',2317.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'size_ratio',1.04031968390804599455e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,3,'top1',0.65,'finite',2.38216623123975040909e-02,'finite');
INSERT INTO "automc_metric" VALUES(1,4,'agreement',7.47786515434896159604e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'bops',2687360.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'bops_ratio',6.4667811662198395467e-03,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'loss',3.41931043304187276543e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'macs',101030.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'macs_ratio',2.48950283866897964513e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'params',1438.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'params_ratio',2.65411590992986334835e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'size_bytes',2675.25,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'size_ratio',0.1201171875,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,4,'top1',0.745,'finite',2.17744438433347363426e-02,'finite');
INSERT INTO "automc_metric" VALUES(1,5,'agreement',9.13197792899846705338e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'bops',3264512.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'bops_ratio',7.85562214161804155121e-03,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'loss',1.42096075602812427218e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'macs',203072.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'macs_ratio',5.00394259580507760887e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'params',2890.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'params_ratio',0.533407161314138,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'size_bytes',2940.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'size_ratio',1.32004310344827596734e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,5,'top1',0.8575,'finite',1.74790554270895064081e-02,'finite');
INSERT INTO "automc_metric" VALUES(1,6,'agreement',8.06334610290887265904e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'bops',4206656.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'bops_ratio',1.01227687371865642668e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'loss',2.665497677693871581e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'macs',172930.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'macs_ratio',4.26120682857593413572e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'params',1893.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'params_ratio',0.349390919158361,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'size_bytes',2718.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'size_ratio',1.22036637931034488979e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,6,'top1',0.8,'finite',0.0199890517978571,'finite');
INSERT INTO "automc_metric" VALUES(1,7,'agreement',9.1499260014679684172e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'bops',5900800.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'bops_ratio',1.41995052042264632841e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'loss',1.40132595398128778629e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'macs',258208.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'macs_ratio',6.36256111023497883394e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'params',2938.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'params_ratio',5.42266519010705105863e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'size_bytes',2758.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'size_ratio',1.23832614942528729251e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,7,'top1',0.8925,'finite',1.54990089116466018409e-02,'finite');
INSERT INTO "automc_metric" VALUES(1,8,'agreement',8.29356179617548594507e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'bops',4976704.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'bops_ratio',1.19757887655732534609e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'loss',2.383988607878040622e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'macs',165602.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'macs_ratio',4.08063594070335933228e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'params',2352.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'params_ratio',4.34108527131782939711e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'size_bytes',2748.75,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'size_ratio',1.23417295258620690612e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,8,'top1',0.79,'finite',2.03528552645792538966e-02,'finite');
INSERT INTO "automc_metric" VALUES(1,9,'agreement',0.889313032132508,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'bops',11223296.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'bops_ratio',2.7007397295379279023e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'loss',1.68599282700042762961e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'macs',175364.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'macs_ratio',4.32118356726068464368e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'params',2392.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'params_ratio',4.41491325212255425469e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'size_bytes',4290.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'size_ratio',1.92618534482758618775e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,9,'top1',0.86,'finite',1.73509464207470889829e-02,'finite');
INSERT INTO "automc_metric" VALUES(1,10,'agreement',9.01663576243563413825e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'bops',4206656.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'bops_ratio',1.01227687371865642668e-02,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'loss',1.54807098219395866678e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'macs',172930.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'macs_ratio',4.26120682857593413572e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'params',1893.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'params_ratio',0.349390919158361,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'size_bytes',2718.0,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'size_ratio',1.22036637931034488979e-01,'finite',NULL,NULL);
INSERT INTO "automc_metric" VALUES(1,10,'top1',0.84,'finite',1.83270563857088585046e-02,'finite');
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
INSERT INTO "automc_point" VALUES(1,5,1,4,6.90907711696838844339e-01,'finite');
INSERT INTO "automc_point" VALUES(1,5,1,8,4.4329028751501453609e-01,'finite');
INSERT INTO "automc_point" VALUES(1,5,1,12,3.07394963824398959051e-01,'finite');
INSERT INTO "automc_point" VALUES(1,5,1,16,2.32814028892224939015e-01,'finite');
INSERT INTO "automc_point" VALUES(1,5,1,20,1.9188314397067637862e-01,'finite');
INSERT INTO "automc_point" VALUES(1,7,1,4,6.88944231492155223506e-01,'finite');
INSERT INTO "automc_point" VALUES(1,7,1,8,4.41326807310330915257e-01,'finite');
INSERT INTO "automc_point" VALUES(1,7,1,12,3.05431483619715282706e-01,'finite');
INSERT INTO "automc_point" VALUES(1,7,1,16,2.30850548687541290426e-01,'finite');
INSERT INTO "automc_point" VALUES(1,7,1,20,1.89919663765992730031e-01,'finite');
INSERT INTO "automc_point" VALUES(1,10,1,4,7.03618734313422256043e-01,'finite');
INSERT INTO "automc_point" VALUES(1,10,1,8,0.456001310131598,'finite');
INSERT INTO "automc_point" VALUES(1,10,1,12,3.20105986440982426266e-01,'finite');
INSERT INTO "automc_point" VALUES(1,10,1,16,2.45525051508808378475e-01,'finite');
INSERT INTO "automc_point" VALUES(1,10,1,20,2.04594166587259818079e-01,'finite');
CREATE TABLE automc_policy (
	fingerprint VARCHAR(64) NOT NULL, 
	json TEXT NOT NULL, 
	CONSTRAINT pk_automc_policy PRIMARY KEY (fingerprint)
);
INSERT INTO "automc_policy" VALUES('278b37ebaef311033bd3cca27dc00fc2f4677cc2f7d47c96c6b2d0d11d07793a','{"prune":{"conv0":{"prune_ratio":0.5},"conv1":{"prune_ratio":0.0}},"quantize":{"conv0":{"activation_bits":8,"weight_bits":2},"conv1":{"activation_bits":8,"weight_bits":2},"linear":{"activation_bits":8,"weight_bits":8}}}');
INSERT INTO "automc_policy" VALUES('1f5e98ce68fedc45d19b3bbf0f28f9833c3a410f1bbab1f956a84577c6ff2bcf','{"prune":{"conv0":{"prune_ratio":0.8},"conv1":{"prune_ratio":0.7}},"quantize":{"conv0":{"activation_bits":8,"weight_bits":4},"conv1":{"activation_bits":8,"weight_bits":8},"linear":{"activation_bits":8,"weight_bits":2}}}');
INSERT INTO "automc_policy" VALUES('5d0fc43edb608021884fc803e4bb97a0410381b3ad8199c64f3634e230a8bcb9','{"prune":{"conv0":{"prune_ratio":0.0},"conv1":{"prune_ratio":0.5}},"quantize":{"conv0":{"activation_bits":8,"weight_bits":4},"conv1":{"activation_bits":8,"weight_bits":2},"linear":{"activation_bits":8,"weight_bits":2}}}');
INSERT INTO "automc_policy" VALUES('9480bf1e158ce3880d3155973485461fbd2e23eceaf052ca5a0fd5e6aa9564d0','{"prune":{"conv0":{"prune_ratio":0.8},"conv1":{"prune_ratio":0.2}},"quantize":{"conv0":{"activation_bits":8,"weight_bits":8},"conv1":{"activation_bits":8,"weight_bits":2},"linear":{"activation_bits":8,"weight_bits":2}}}');
INSERT INTO "automc_policy" VALUES('bd7871dfd365ddfb13068eb4992f82df2e734a087fa5897851c95098ac3cd59e','{"prune":{"conv0":{"prune_ratio":0.7},"conv1":{"prune_ratio":0.3}},"quantize":{"conv0":{"activation_bits":8,"weight_bits":2},"conv1":{"activation_bits":8,"weight_bits":4},"linear":{"activation_bits":8,"weight_bits":8}}}');
INSERT INTO "automc_policy" VALUES('d2e96b10420fa90bca2ed1c3fc7f6aa11adea9189a26ae268a4a58cf53709c49','{"prune":{"conv0":{"prune_ratio":0.3},"conv1":{"prune_ratio":0.6}},"quantize":{"conv0":{"activation_bits":8,"weight_bits":2},"conv1":{"activation_bits":8,"weight_bits":4},"linear":{"activation_bits":8,"weight_bits":4}}}');
INSERT INTO "automc_policy" VALUES('54257dcab9368f7d9760c8daf3860d3b305bcab55c077eba724cc2c90f3ca288','{"prune":{"conv0":{"prune_ratio":0.6},"conv1":{"prune_ratio":0.1}},"quantize":{"conv0":{"activation_bits":8,"weight_bits":8},"conv1":{"activation_bits":8,"weight_bits":2},"linear":{"activation_bits":8,"weight_bits":4}}}');
INSERT INTO "automc_policy" VALUES('397e7c978d8552f8459f71a0f9387c7927b609df4a7b0ac069b3e6a502720b24','{"prune":{"conv0":{"prune_ratio":0.5},"conv1":{"prune_ratio":0.2}},"quantize":{"conv0":{"activation_bits":8,"weight_bits":8},"conv1":{"activation_bits":8,"weight_bits":8},"linear":{"activation_bits":8,"weight_bits":8}}}');
CREATE TABLE automc_revision (
	study_id INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	spec TEXT NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_automc_revision PRIMARY KEY (study_id, revision), 
	CONSTRAINT fk_automc_revision_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id)
);
INSERT INTO "automc_revision" VALUES(1,0,'{"name":"old","model":{"name":"digits_net","settings":{},"weights":null},"data":{"name":"digits","settings":{}},"rules":[{"operator":"prune","settings":{"prune_ratio":{"low":0.0,"high":0.8,"step":0.1,"log":false}},"layers":["*"],"exclude":[],"kinds":[],"indices":[]},{"operator":"quantize","settings":{"weight_bits":[2,4,8],"activation_bits":[8]},"layers":["*"],"exclude":[],"kinds":[],"indices":[]}],"order":["drop","prune","factorize","sparsify","quantize","distill"],"objectives":{"top1":"maximize","size_bytes":"minimize"},"constraints":["macs_ratio <= 0.9"],"proposer":{"name":"random","settings":{}},"stopper":{"name":"never","settings":{}},"evaluator":{"name":"synthetic","settings":{"layers":3,"inputs":400}},"rungs":[{"steps":0,"share":0.25},{"steps":20,"share":0.5}],"budget":{"trials":16,"seconds":null},"workers":{"count":0,"address":null,"window":4,"timeout_s":null},"seed":0,"revision":0,"first_trial":0,"orders":[],"task":{"name":"classification","settings":{}}}','2026-11-22T15:36:14.274Z');
CREATE TABLE automc_study (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	facts TEXT NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_automc_study PRIMARY KEY (id), 
	CONSTRAINT uq_automc_study_name UNIQUE (name)
);
INSERT INTO "automc_study" VALUES(1,'old',0,'{"baseline":{"top1":0.95,"loss":0.05129329438755058,"agreement":1.0,"params":5418,"macs":405824,"bops":415563776,"size_bytes":22272.0,"params_ratio":1.0,"macs_ratio":1.0,"bops_ratio":1.0,"size_ratio":1.0},"space":{"order":["drop","prune","factorize","sparsify","quantize","distill"],"decisions":[["prune","conv0","prune_ratio","0..0.8 step 0.1"],["quantize","conv0","weight_bits","{2, 4, 8}"],["prune","conv1","prune_ratio","0..0.8 step 0.1"],["quantize","conv1","weight_bits","{2, 4, 8}"],["quantize","linear","weight_bits","{2, 4, 8}"]],"fixed":[["quantize","conv0","activation_bits",8],["quantize","conv1","activation_bits",8],["quantize","linear","activation_bits",8]]},"layers":{"layers":[{"name":"conv0","index":0,"kind":"conv","in_channels":3,"out_channels":16,"kernel":[3,3],"stride":[1,1],"out_shape":[16,16,16],"params":448,"macs":110592,"group":"conv0","reason":""},{"name":"conv1","index":1,"kind":"conv","in_channels":16,"out_channels":32,"kernel":[3,3],"stride":[1,1],"out_shape":[32,8,8],"params":4640,"macs":294912,"group":"conv1","reason":""},{"name":"linear","index":2,"kind":"linear","in_channels":32,"out_channels":10,"kernel":[],"stride":[],"out_shape":[10],"params":330,"macs":320,"group":"","reason":"it makes the model''s output"}],"groups":[{"name":"conv0","channels":16,"producers":["conv0"],"consumers":["conv1"],"multiple":1},{"name":"conv1","channels":32,"producers":["conv1"],"consumers":["linear"],"multiple":1}],"input_shape":[3,16,16],"sensitivity":[],"blocks":[]},"warm_start":[]}','2026-11-22T15:36:14.261Z');
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
	finished TEXT, samples INTEGER DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_automc_trial PRIMARY KEY (study_id, number), 
	CONSTRAINT fk_automc_trial_study_id FOREIGN KEY(study_id) REFERENCES automc_study (id), 
	CONSTRAINT fk_automc_trial_policy FOREIGN KEY(policy) REFERENCES automc_policy (fingerprint), 
	CONSTRAINT ck_automc_trial_state CHECK (state IN ('waiting', 'running', 'complete', 'stopped', 'failed'))
);
INSERT INTO "automc_trial" VALUES(1,0,'278b37ebaef311033bd3cca27dc00fc2f4677cc2f7d47c96c6b2d0d11d07793a','','complete',0,'','',1,NULL,'{"conv0":{"channels":8},"conv1":{"channels":32}}',NULL,4.04880199494073167443e-03,'2026-11-22T15:36:14.423Z','2026-11-22T15:36:14.470Z','2026-11-22T15:36:14.514Z',400);
INSERT INTO "automc_trial" VALUES(1,1,'1f5e98ce68fedc45d19b3bbf0f28f9833c3a410f1bbab1f956a84577c6ff2bcf','','complete',0,'','',1,NULL,'{"conv0":{"channels":4},"conv1":{"channels":10}}',NULL,5.87886002904269844293e-04,'2026-11-22T15:36:14.559Z','2026-11-22T15:36:14.594Z','2026-11-22T15:36:14.630Z',400);
INSERT INTO "automc_trial" VALUES(1,2,'5d0fc43edb608021884fc803e4bb97a0410381b3ad8199c64f3634e230a8bcb9','','complete',0,'','',1,NULL,'{"conv0":{"channels":16},"conv1":{"channels":16}}',NULL,5.6645300355739891529e-04,'2026-11-22T15:36:14.667Z','2026-11-22T15:36:14.706Z','2026-11-22T15:36:14.742Z',400);
INSERT INTO "automc_trial" VALUES(1,3,'9480bf1e158ce3880d3155973485461fbd2e23eceaf052ca5a0fd5e6aa9564d0','','complete',0,'','',1,NULL,'{"conv0":{"channels":4},"conv1":{"channels":26}}',NULL,3.65200400119647383689e-03,'2026-11-22T15:36:14.783Z','2026-11-22T15:36:14.818Z','2026-11-22T15:36:14.858Z',400);
INSERT INTO "automc_trial" VALUES(1,4,'bd7871dfd365ddfb13068eb4992f82df2e734a087fa5897851c95098ac3cd59e','','complete',0,'','',1,NULL,'{"conv0":{"channels":5},"conv1":{"channels":23}}',NULL,3.16905400541145354509e-03,'2026-11-22T15:36:14.895Z','2026-11-22T15:36:14.931Z','2026-11-22T15:36:14.975Z',400);
INSERT INTO "automc_trial" VALUES(1,5,'278b37ebaef311033bd3cca27dc00fc2f4677cc2f7d47c96c6b2d0d11d07793a','','complete',1,'','',1,NULL,'{"conv0":{"channels":8},"conv1":{"channels":32}}',NULL,1.35481220000656321644e-01,'2026-11-22T15:36:15.028Z','2026-11-22T15:36:15.062Z','2026-11-22T15:36:15.227Z',400);
INSERT INTO "automc_trial" VALUES(1,6,'d2e96b10420fa90bca2ed1c3fc7f6aa11adea9189a26ae268a4a58cf53709c49','','complete',0,'','',1,NULL,'{"conv0":{"channels":12},"conv1":{"channels":13}}',NULL,3.18390800384804606437e-03,'2026-11-22T15:36:15.266Z','2026-11-22T15:36:15.307Z','2026-11-22T15:36:15.354Z',400);
INSERT INTO "automc_trial" VALUES(1,7,'5d0fc43edb608021884fc803e4bb97a0410381b3ad8199c64f3634e230a8bcb9','','complete',1,'','',1,NULL,'{"conv0":{"channels":16},"conv1":{"channels":16}}',NULL,1.87743933995079714804e-01,'2026-11-22T15:36:15.421Z','2026-11-22T15:36:15.458Z','2026-11-22T15:36:15.698Z',400);
INSERT INTO "automc_trial" VALUES(1,8,'54257dcab9368f7d9760c8daf3860d3b305bcab55c077eba724cc2c90f3ca288','','complete',0,'','',1,NULL,'{"conv0":{"channels":7},"conv1":{"channels":29}}',NULL,3.27422800182830542325e-03,'2026-11-22T15:36:15.731Z','2026-11-22T15:36:15.762Z','2026-11-22T15:36:15.798Z',400);
INSERT INTO "automc_trial" VALUES(1,9,'397e7c978d8552f8459f71a0f9387c7927b609df4a7b0ac069b3e6a502720b24','','complete',0,'','',1,NULL,'{"conv0":{"channels":8},"conv1":{"channels":26}}',NULL,3.15922099980525672435e-03,'2026-11-22T15:36:15.839Z','2026-11-22T15:36:15.881Z','2026-11-22T15:36:15.926Z',400);
INSERT INTO "automc_trial" VALUES(1,10,'d2e96b10420fa90bca2ed1c3fc7f6aa11adea9189a26ae268a4a58cf53709c49','','complete',1,'','',1,NULL,'{"conv0":{"channels":12},"conv1":{"channels":13}}',NULL,1.71881709000444971024e-01,'2026-11-22T15:36:15.963Z','2026-11-22T15:36:15.995Z','2026-11-22T15:36:16.198Z',400);
CREATE TABLE automc_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT automc_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "automc_version" VALUES('0003');
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
CREATE VIEW automc_trials AS
SELECT s.name AS study, t.number AS trial, t.state, t.rung, t.reason, t.message, t.attempts, t.twin,
       MAX(CASE WHEN m.name = 'top1' THEN m.value END) AS top1, MAX(CASE WHEN m.name = 'top5' THEN m.value END) AS top5, MAX(CASE WHEN m.name = 'top1_worst_class' THEN m.value END) AS top1_worst_class, MAX(CASE WHEN m.name = 'loss' THEN m.value END) AS loss, MAX(CASE WHEN m.name = 'agreement' THEN m.value END) AS agreement, MAX(CASE WHEN m.name = 'mse' THEN m.value END) AS mse, MAX(CASE WHEN m.name = 'mae' THEN m.value END) AS mae, MAX(CASE WHEN m.name = 'r2' THEN m.value END) AS r2, MAX(CASE WHEN m.name = 'teacher_r2' THEN m.value END) AS teacher_r2, MAX(CASE WHEN m.name = 'miou' THEN m.value END) AS miou, MAX(CASE WHEN m.name = 'pixel_accuracy' THEN m.value END) AS pixel_accuracy, MAX(CASE WHEN m.name = 'map50' THEN m.value END) AS map50, MAX(CASE WHEN m.name = 'map' THEN m.value END) AS map, MAX(CASE WHEN m.name = 'perplexity' THEN m.value END) AS perplexity, MAX(CASE WHEN m.name = 'cosine' THEN m.value END) AS cosine, MAX(CASE WHEN m.name = 'score' THEN m.value END) AS score, MAX(CASE WHEN m.name = 'latency_ms' THEN m.value END) AS latency_ms, MAX(CASE WHEN m.name = 'latency_torch_ms' THEN m.value END) AS latency_torch_ms, MAX(CASE WHEN m.name = 'latency_ratio' THEN m.value END) AS latency_ratio, MAX(CASE WHEN m.name = 'params' THEN m.value END) AS params, MAX(CASE WHEN m.name = 'params_nonzero' THEN m.value END) AS params_nonzero, MAX(CASE WHEN m.name = 'macs' THEN m.value END) AS macs, MAX(CASE WHEN m.name = 'bops' THEN m.value END) AS bops, MAX(CASE WHEN m.name = 'size_bytes' THEN m.value END) AS size_bytes, MAX(CASE WHEN m.name = 'latency_predicted_ms' THEN m.value END) AS latency_predicted_ms, MAX(CASE WHEN m.name = 'activation_bytes' THEN m.value END) AS activation_bytes, MAX(CASE WHEN m.name = 'energy_model_mj' THEN m.value END) AS energy_model_mj, MAX(CASE WHEN m.name = 'params_ratio' THEN m.value END) AS params_ratio, MAX(CASE WHEN m.name = 'params_nonzero_ratio' THEN m.value END) AS params_nonzero_ratio, MAX(CASE WHEN m.name = 'macs_ratio' THEN m.value END) AS macs_ratio, MAX(CASE WHEN m.name = 'bops_ratio' THEN m.value END) AS bops_ratio, MAX(CASE WHEN m.name = 'size_ratio' THEN m.value END) AS size_ratio, MAX(CASE WHEN m.name = 'activation_ratio' THEN m.value END) AS activation_ratio, MAX(CASE WHEN m.name = 'latency_predicted_ratio' THEN m.value END) AS latency_predicted_ratio, MAX(CASE WHEN m.name = 'energy_model_ratio' THEN m.value END) AS energy_model_ratio,
       MAX(CASE WHEN m.name = 'top1' THEN m.error END) AS top1_error, MAX(CASE WHEN m.name = 'top5' THEN m.error END) AS top5_error, MAX(CASE WHEN m.name = 'top1_worst_class' THEN m.error END) AS top1_worst_class_error, MAX(CASE WHEN m.name = 'loss' THEN m.error END) AS loss_error, MAX(CASE WHEN m.name = 'agreement' THEN m.error END) AS agreement_error, MAX(CASE WHEN m.name = 'mse' THEN m.error END) AS mse_error, MAX(CASE WHEN m.name = 'mae' THEN m.error END) AS mae_error, MAX(CASE WHEN m.name = 'r2' THEN m.error END) AS r2_error, MAX(CASE WHEN m.name = 'teacher_r2' THEN m.error END) AS teacher_r2_error, MAX(CASE WHEN m.name = 'miou' THEN m.error END) AS miou_error, MAX(CASE WHEN m.name = 'pixel_accuracy' THEN m.error END) AS pixel_accuracy_error, MAX(CASE WHEN m.name = 'map50' THEN m.error END) AS map50_error, MAX(CASE WHEN m.name = 'map' THEN m.error END) AS map_error, MAX(CASE WHEN m.name = 'perplexity' THEN m.error END) AS perplexity_error, MAX(CASE WHEN m.name = 'cosine' THEN m.error END) AS cosine_error, MAX(CASE WHEN m.name = 'score' THEN m.error END) AS score_error, MAX(CASE WHEN m.name = 'latency_ms' THEN m.error END) AS latency_ms_error, MAX(CASE WHEN m.name = 'latency_torch_ms' THEN m.error END) AS latency_torch_ms_error, MAX(CASE WHEN m.name = 'latency_ratio' THEN m.error END) AS latency_ratio_error,
       t.samples, t.seconds, t.artifact, t.policy, t.created, t.started, t.finished
FROM automc_trial t
JOIN automc_study s ON s.id = t.study_id
LEFT JOIN automc_metric m ON m.study_id = t.study_id AND m.number = t.number
GROUP BY s.id, t.study_id, t.number;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('automc_event',36);
COMMIT;
