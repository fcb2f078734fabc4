package auth

// AccessTokenNameLength is the part of an access token that names its row; the rest is its secret.
const AccessTokenNameLength = 32

// UserPerformer is a user acting by password.
func UserPerformer(id int64, username string) *Performer {
	return &Performer{UserID: &id, Username: username, Metadata: map[string]any{"username": username}, Description: "user " + username}
}

// RobotPerformer is a robot.
func RobotPerformer(id int64, username string) *Performer {
	return &Performer{UserID: &id, Username: username, Metadata: map[string]any{"username": username, "is_robot": true},
		Description: "robot " + username}
}

// AppTokenPerformer is a user acting by an application specific token.
func AppTokenPerformer(id int64, username, uuid, title string) *Performer {
	return &Performer{UserID: &id, Username: username,
		Metadata:    map[string]any{"username": username, "app_specific_token": uuid, "app_specific_token_title": title},
		Description: "app specific token " + title + " for user " + username}
}

// OAuthPerformer is a user acting by an OAuth token.
func OAuthPerformer(id int64, username string, tokenID int64, clientID, application string) *Performer {
	return &Performer{UserID: &id, Username: username,
		Metadata: map[string]any{"username": username, "oauth_token_id": tokenID,
			"oauth_token_application_id": clientID, "oauth_token_application": application},
		Description: "oauthtoken for user " + username}
}

// AccessTokenPerformer is a repository's access token. One without a name is null in the action log.
func AccessTokenPerformer(friendlyName *string) *Performer {
	if friendlyName == nil {
		return &Performer{Metadata: map[string]any{"token": nil}, Description: "token"}
	}
	return &Performer{Metadata: map[string]any{"token": *friendlyName}, Description: "token " + *friendlyName}
}
