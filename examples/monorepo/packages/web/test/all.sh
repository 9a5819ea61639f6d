a test of web
